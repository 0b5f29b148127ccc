package build

import (
	"fmt"
	"os"
)

// secretValues reads all secrets at the start, so that a missing one is an
// error before anything runs and the values never lie in a file of the build.
func secretValues(secrets []Secret) (map[string][]byte, error) {
	values := make(map[string][]byte, len(secrets))
	for _, s := range secrets {
		switch {
		case s.ID == "":
			return nil, fmt.Errorf("secret without an id")
		case s.File != "" && s.Env != "":
			return nil, fmt.Errorf("secret %s: both a file and a variable are given", s.ID)
		case s.Env != "":
			v, ok := os.LookupEnv(s.Env)
			if !ok {
				return nil, fmt.Errorf("secret %s: environment variable %s is not set", s.ID, s.Env)
			}
			values[s.ID] = []byte(v)
		default:
			b, err := os.ReadFile(s.File)
			if err != nil {
				return nil, fmt.Errorf("secret %s: %w", s.ID, err)
			}
			values[s.ID] = b
		}
	}
	return values, nil
}

// sshSockets maps agent ids to sockets.
func sshSockets(agents []SSHAgent) (map[string]string, error) {
	sockets := make(map[string]string, len(agents))
	for _, a := range agents {
		id, socket := a.ID, a.Socket
		if id == "" {
			id = "default"
		}
		if socket == "" {
			socket = os.Getenv("SSH_AUTH_SOCK")
		}
		if socket == "" {
			return nil, fmt.Errorf("ssh agent %s: no socket is given and SSH_AUTH_SOCK is not set", id)
		}
		info, err := os.Stat(socket)
		if err != nil {
			return nil, fmt.Errorf("ssh agent %s: %w", id, err)
		}
		if info.Mode()&os.ModeSocket == 0 {
			return nil, fmt.Errorf("ssh agent %s: %s is not a socket", id, socket)
		}
		sockets[id] = socket
	}
	return sockets, nil
}
