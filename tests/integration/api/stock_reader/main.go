// Reads a member's log as anybody with stock tools would: the checkpoint and the proofs are opened by
// golang.org/x/mod/sumdb/note, the tiles authenticated and the proofs made and checked by
// golang.org/x/mod/sumdb/tlog. Nothing here is shared with Countersign's own code but the words of a leaf.
//
//	stockreader NODE_URL ORIGIN NOTE_KEY_HEX EARLIER_CHECKPOINT [PROOF_FILE ...]
//
// The API key in READER_KEY opens the entry bundles. Prints one JSON object; exit status 1 and the reason
// on standard error if anything doesn't hold.
package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const tileHeight = 8

func main() {
	if len(os.Args) < 5 {
		fmt.Fprintln(os.Stderr, "stockreader NODE_URL ORIGIN NOTE_KEY_HEX EARLIER_CHECKPOINT [PROOF_FILE ...]")
		os.Exit(2)
	}
	found, err := read(os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	json.NewEncoder(os.Stdout).Encode(found)
}

type result struct {
	Size    int64  `json:"size"`
	Root    string `json:"root"`
	Earlier int64  `json:"earlier_size"`
	Records int64  `json:"records_proven"`
	Tiles   int    `json:"hash_tiles_fetched"`
	Proofs  int    `json:"proof_files"`
}

func read(url, origin, keyHex, earlierFile string, proofFiles []string) (*result, error) {
	key, err := hex.DecodeString(keyHex)
	if err != nil || len(key) != ed25519.PublicKeySize {
		return nil, errors.New("the note key is 32 bytes in hex")
	}
	vkey, err := note.NewEd25519VerifierKey(origin, key)
	if err != nil {
		return nil, err
	}
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return nil, err
	}
	known := note.VerifierList(verifier)
	raw, err := fetch(url+"/checkpoint", "")
	if err != nil {
		return nil, err
	}
	tree, err := openCheckpoint(raw, origin, known)
	if err != nil {
		return nil, fmt.Errorf("the node's checkpoint: %w", err)
	}
	raw, err = os.ReadFile(earlierFile)
	if err != nil {
		return nil, err
	}
	earlier, err := openCheckpoint(raw, origin, known)
	if err != nil {
		return nil, fmt.Errorf("the earlier checkpoint: %w", err)
	}
	tiles := &tileReader{url: url, kept: map[tlog.Tile][]byte{}}
	hashes := tlog.TileHashReader(*tree, tiles)
	if err := checkGrowth(*tree, *earlier, hashes); err != nil {
		return nil, fmt.Errorf("consistency of %d with %d: %w", earlier.N, tree.N, err)
	}
	if err := checkRecords(url, *tree, hashes); err != nil {
		return nil, err
	}
	for _, file := range proofFiles {
		if err := checkProofFile(file, origin, known); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
	}
	return &result{tree.N, hex.EncodeToString(tree.Hash[:]), earlier.N, tree.N, tiles.fetched, len(proofFiles)}, nil
}

// openCheckpoint is c2sp.org/tlog-checkpoint over a note that a known key has signed.
func openCheckpoint(raw []byte, origin string, known note.Verifiers) (*tlog.Tree, error) {
	opened, err := note.Open(raw, known)
	if err != nil {
		return nil, err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) < 4 || lines[0] != origin {
		return nil, errors.New("not a checkpoint of this log")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return nil, err
	}
	root, err := tlog.ParseHash(lines[2])
	if err != nil {
		return nil, err
	}
	return &tlog.Tree{N: size, Hash: root}, nil
}

func checkGrowth(tree, earlier tlog.Tree, hashes tlog.HashReader) error {
	proof, err := tlog.ProveTree(tree.N, earlier.N, hashes)
	if err != nil {
		return err
	}
	return tlog.CheckTree(proof, tree.N, tree.Hash, earlier.N, earlier.Hash)
}

// checkRecords proves each entry as it is served, not only its hash.
func checkRecords(url string, tree tlog.Tree, hashes tlog.HashReader) error {
	var number int64
	for number < tree.N {
		bundle := tlog.Tile{H: tileHeight, L: -1, N: number >> tileHeight, W: 1 << tileHeight}
		if rest := tree.N - number; rest < 1<<tileHeight {
			bundle.W = int(rest)
		}
		raw, err := fetch(url+"/"+tilePath(bundle), os.Getenv("READER_KEY"))
		if err != nil {
			return err
		}
		for place := 0; place < bundle.W; place++ {
			if len(raw) < 2 || len(raw) < 2+int(binary.BigEndian.Uint16(raw)) {
				return fmt.Errorf("entry bundle %d ends within entry %d", bundle.N, number)
			}
			end := 2 + int(binary.BigEndian.Uint16(raw))
			proof, err := tlog.ProveRecord(tree.N, number, hashes)
			if err != nil {
				return fmt.Errorf("record %d: %w", number, err)
			}
			if err := tlog.CheckRecord(proof, tree.N, tree.Hash, number, tlog.RecordHash(raw[2:end])); err != nil {
				return fmt.Errorf("record %d: %w", number, err)
			}
			raw = raw[end:]
			number++
		}
		if len(raw) != 0 {
			return fmt.Errorf("entry bundle %d has %d bytes more than its entries", bundle.N, len(raw))
		}
	}
	return nil
}

// checkProofFile reads a c2sp.org/tlog-proof@v1 file. What the record is stands in `extra`, which the format
// leaves to the application: the ten words of the leaf (docs/evidence.md).
func checkProofFile(file, origin string, known note.Verifiers) error {
	raw, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	head, checkpoint, found := bytes.Cut(raw, []byte("\n\n"))
	lines := strings.Split(string(head), "\n")
	if !found || len(lines) < 3 || lines[0] != "c2sp.org/tlog-proof@v1" ||
		!strings.HasPrefix(lines[1], "extra ") || !strings.HasPrefix(lines[2], "index ") {
		return errors.New("not a tlog-proof")
	}
	leaf, err := leafOf(strings.TrimPrefix(lines[1], "extra "))
	if err != nil {
		return err
	}
	index, err := strconv.ParseInt(strings.TrimPrefix(lines[2], "index "), 10, 64)
	if err != nil {
		return err
	}
	proof := tlog.RecordProof{}
	for _, line := range lines[3:] {
		hash, err := tlog.ParseHash(line)
		if err != nil {
			return err
		}
		proof = append(proof, hash)
	}
	tree, err := openCheckpoint(checkpoint, origin, known)
	if err != nil {
		return err
	}
	return tlog.CheckRecord(proof, tree.N, tree.Hash, index, tlog.RecordHash(leaf))
}

func leafOf(extra string) ([]byte, error) {
	document, err := base64.StdEncoding.DecodeString(extra)
	if err != nil {
		return nil, err
	}
	var parts struct{ Leaf map[string]string }
	if err := json.Unmarshal(document, &parts); err != nil {
		return nil, err
	}
	var leaf []byte
	for _, name := range []string{"version", "kind", "member_id", "txid", "commitment", "private_commitment",
		"pair_id", "pair_seq", "terminal_id", "terminal_seq"} {
		word, err := hex.DecodeString(parts.Leaf[name])
		if err != nil || len(word) != 32 {
			return nil, fmt.Errorf("the leaf's %s is not 32 bytes in hex", name)
		}
		leaf = append(leaf, word...)
	}
	return leaf, nil
}

// tileReader is a tlog.TileReader over HTTP. C2SP's paths leave the height out, which is always 8.
type tileReader struct {
	url     string
	kept    map[tlog.Tile][]byte
	fetched int
}

func (r *tileReader) Height() int { return tileHeight }

func (r *tileReader) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, tile := range tiles {
		data, have := r.kept[tile]
		if !have {
			var err error
			if data, err = fetch(r.url+"/"+tilePath(tile), ""); err != nil {
				return nil, err
			}
			r.fetched++
		}
		all = append(all, data)
	}
	return all, nil
}

// SaveTiles is called with tiles that were found to belong to the tree.
func (r *tileReader) SaveTiles(tiles []tlog.Tile, data [][]byte) {
	for place, tile := range tiles {
		r.kept[tile] = data[place]
	}
}

func tilePath(tile tlog.Tile) string {
	path := strings.TrimPrefix(tile.Path(), "tile/8/")
	return "tile/" + strings.Replace(path, "data/", "entries/", 1)
}

func fetch(url, key string) ([]byte, error) {
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	if key != "" {
		request.Header.Set("Authorization", "Bearer "+key)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, answer.Status)
	}
	return io.ReadAll(answer.Body)
}
