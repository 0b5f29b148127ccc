package image

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Ports is what one argument of EXPOSE stands for.
type Ports struct {
	// Ports are the single ports with their protocol, such as "80/tcp".
	Ports []string
	// Proto is the protocol as written, "tcp" when none is.
	Proto string
	// Host says that the argument names a host address or port, which EXPOSE
	// ignores.
	Host bool
}

// ParsePorts reads an argument of EXPOSE: "port[-port][/proto]". An address and
// a port of the host in front, as in "127.0.0.1:8080:80", are checked and then
// ignored, as BuildKit does.
func ParsePorts(spec string) (Ports, error) {
	host, port := "", spec
	if i := strings.LastIndexByte(spec, ':'); i >= 0 {
		host, port = spec[:i], spec[i+1:]
	}
	number, proto, _ := strings.Cut(port, "/")
	if number == "" {
		return Ports{}, fmt.Errorf("invalid port: %q: no port specified", spec)
	}
	switch strings.ToLower(proto) {
	case "":
		proto = "tcp"
	case "tcp", "udp", "sctp":
	default:
		return Ports{}, fmt.Errorf("invalid port: %q: invalid proto: %s", spec, proto)
	}
	p := Ports{Proto: proto}

	address, hostPort := "", host
	if i := strings.LastIndexByte(host, ':'); i >= 0 {
		address, hostPort = host[:i], host[i+1:]
	}
	p.Host = address != "" || hostPort != ""
	if err := checkAddress(address); err != nil {
		return Ports{}, err
	}
	first, last, err := portRange(number)
	if err != nil {
		return Ports{}, fmt.Errorf("invalid containerPort: %s", number)
	}
	if hostPort != "" {
		hostFirst, hostLast, err := portRange(hostPort)
		if err != nil {
			return Ports{}, fmt.Errorf("invalid hostPort: %s", hostPort)
		}
		if last != first && last-first != hostLast-hostFirst {
			return Ports{}, fmt.Errorf("invalid ranges specified for container and host Ports: %s and %s", number, hostPort)
		}
	}
	for n := first; n <= last; n++ {
		p.Ports = append(p.Ports, strconv.Itoa(n)+"/"+strings.ToLower(proto))
	}
	return p, nil
}

func checkAddress(address string) error {
	bareAddress := address
	if strings.HasPrefix(address, "[") {
		inner, ok := strings.CutSuffix(address[1:], "]")
		if !ok {
			return fmt.Errorf("invalid IP address %s", address)
		}
		bareAddress = inner
	}
	if bareAddress == "" {
		return nil
	}
	if a, err := netip.ParseAddr(bareAddress); err != nil || a.Zone() != "" {
		return fmt.Errorf("invalid IP address: %s", bareAddress)
	}
	return nil
}

func portRange(s string) (first, last int, err error) {
	from, to, isRange := strings.Cut(s, "-")
	if first, err = portNumber(from); err != nil {
		return 0, 0, err
	}
	if !isRange {
		return first, first, nil
	}
	if last, err = portNumber(to); err != nil {
		return 0, 0, err
	}
	if last < first {
		return 0, 0, errors.New("the range runs backwards")
	}
	return first, last, nil
}

func portNumber(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, err
	}
	if n < 0 || n > 65535 {
		return 0, errors.New("value out of range (0–65535)")
	}
	return n, nil
}
