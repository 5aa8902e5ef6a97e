// A producer in Go: PRESQUE_URL=http://127.0.0.1:5000 go run producer.go QUEUE NAME... Needs the standard library alone.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"
)

func main() {
	for _, name := range os.Args[2:] {
		job, _ := json.Marshal(map[string]string{"name": name})
		answer, err := http.Post(os.Getenv("PRESQUE_URL")+"/q/"+os.Args[1], "application/json", bytes.NewReader(job))
		if err != nil {
			log.Fatal(err)
		}
		var told struct{ ID, Error string }
		json.NewDecoder(answer.Body).Decode(&told)
		answer.Body.Close()
		if told.Error != "" {
			log.Fatal(told.Error)
		}
		fmt.Println(told.ID)
	}
}
