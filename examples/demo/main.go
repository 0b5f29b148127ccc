// Command greeter is what the demo image runs: at build time it writes a
// greeting, at run time it shows it.
package main

import (
	"flag"
	"fmt"
	"os"
)

func main() {
	to := flag.String("to", "", "write a greeting to this file")
	show := flag.String("show", "", "show this file")
	flag.Parse()
	if err := greet(*to, *show); err != nil {
		fmt.Fprintln(os.Stderr, "greeter:", err)
		os.Exit(1)
	}
}

func greet(to, show string) error {
	if to != "" {
		host, err := os.Hostname()
		if err != nil {
			return err
		}
		text := fmt.Sprintf("hello, %s, from process %d of user %d on %s\n", os.Getenv("WHO"), os.Getpid(), os.Getuid(), host)
		fmt.Print(text)
		return os.WriteFile(to, []byte(text), 0o644)
	}
	text, err := os.ReadFile(show)
	if err != nil {
		return err
	}
	fmt.Print(string(text))
	return nil
}
