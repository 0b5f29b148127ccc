// Package architecture holds no code: its test checks which package of this
// module may import which, and says why.
package architecture
