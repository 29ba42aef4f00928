// What runs in containers, in Go: an ordinary program. Its first argument says what to do; it does as program.c does.
package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
)

func main() {
	switch os.Args[1] {
	case "say":
		for _, argument := range os.Args[2:] {
			fmt.Println("argument:", argument)
		}
		quality := os.Getenv("QUALITY")
		if quality == "" {
			quality = "none"
		}
		fmt.Println("QUALITY:", quality)
	case "cat":
		if _, err := io.Copy(os.Stdout, os.Stdin); err != nil {
			os.Exit(1)
		}
	case "read":
		text, err := os.ReadFile(os.Args[2])
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		os.Stdout.Write(text)
	case "write":
		if os.WriteFile(os.Args[2], []byte(os.Args[3]), 0o644) != nil {
			os.Exit(1)
		}
	default:
		fmt.Fprintln(os.Stderr, "leaving with", os.Args[2])
		code, _ := strconv.Atoi(os.Args[2])
		os.Exit(code)
	}
}
