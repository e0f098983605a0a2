package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// checkStore checks the store, the ring and the revocations in it. It returns the
// state of the ring, or nil if that is not known. An error is one of the command
// line, or of a store that does not answer in time.
func (d *doctorConfig) checkStore(ctx context.Context, c *call, u *checkup) (*keys.Status, error) {
	secrets := d.readSecrets(c, u)
	at, err := d.site.store.read(c)
	if err != nil {
		if wrong := (usageError{}); errors.As(err, &wrong) {
			return nil, err
		}
		foundOpening(err, u)
		return nil, nil
	}
	began := time.Now()
	s, err := d.site.open(ctx, c)
	if err != nil {
		if wrong := (usageError{}); errors.As(err, &wrong) || ctx.Err() != nil {
			return nil, err
		}
		foundOpening(err, u)
		return nil, nil
	}
	defer s.close()
	if took := time.Since(began); took > slowStore {
		u.found("lag", "look at the load and the disk of the store's server, and at the network to it", "the store has taken %s to open and to answer: sign-ins and sign-outs wait for it", spoken(took))
	} else {
		u.ok("store", "it is a store of the kind %s, and answers", s.kind)
	}
	if s.all != nil {
		u.ok("schema", "it is of the version that this release reads")
	}
	d.checkStoreClock(ctx, s, u)
	switch s.kind {
	case "sqlite":
		d.checkSQLiteFile(ctx, s, u)
	case "file":
		checkFileModes(s.path, beginningWith(s.path), u)
	case "postgres":
		checkPostgres(ctx, s, u)
	case "redis":
		checkRedis(ctx, at, u)
	}
	status := d.checkRing(ctx, s, secrets, u)
	if s.all != nil {
		checkRevocations(ctx, s, u)
	}
	return status, ctx.Err()
}

// slowStore is when a store answers too late to be healthy.
const slowStore = 3 * time.Second

// readSecrets returns the secrets that are given.
func (d *doctorConfig) readSecrets(c *call, u *checkup) []secret {
	secrets, err := d.secrets.readAny(c)
	if err != nil {
		check := "sealing"
		if strings.Contains(err.Error(), "lets others read it") {
			check = "permissions"
		}
		text, remedy := split(err)
		u.found(check, remedy, "a secret: %s", text)
	}
	return secrets
}

// checkOf returns the check that an error of opening belongs to.
func checkOf(err error) string {
	text := err.Error()
	for _, part := range []struct{ has, check string }{
		{"lets others read it", "permissions"},
		{"may not do that", "permissions"},
		{"refuses the user", "permissions"},
		{"WRONGPASS", "permissions"},
		{"NOAUTH", "permissions"},
		{"cannot be opened", "permissions"},
		{"cannot be written", "permissions"},
		{"of version", "schema"},
		{"not what this version", "schema"},
		{"not complete", "schema"},
		{"has no tables", "schema"},
		{"the tables are not", "schema"},
		{"standby", "standby"},
		{"only reads", "standby"},
		{"replica", "standby"},
		{"READONLY", "standby"},
	} {
		if strings.Contains(text, part.has) {
			return part.check
		}
	}
	return "store"
}

func foundOpening(err error, u *checkup) {
	text, remedy := split(err)
	u.found(checkOf(err), remedy, "%s", text)
}

// split cuts the text of an error, which names fault and remedy in one sentence.
func split(err error) (text, remedy string) {
	text = err.Error()
	const read = "do what the sentence says, and run this again"
	for _, between := range []string{": use ", ": run ", ": check ", ": grant ", ": permit ", "; check ", "; connect ", "; call ", "; grant ", "; permit ", "; create ", "; run ", "; use ", "; it must ", "; the program "} {
		if before, after, ok := strings.Cut(text, between); ok {
			return before, strings.TrimLeft(between, ":; ") + after
		}
	}
	return text, read
}

// checkStoreClock compares the store's clock with this machine's.
func (d *doctorConfig) checkStoreClock(ctx context.Context, s *site, u *checkup) {
	sent := time.Now()
	stored, err := s.ring.Load(ctx, s.namespace)
	got := time.Now()
	switch {
	case err != nil:
		foundOpening(err, u)
	case stored.Time.IsZero():
		u.skip("clock", "the store has no clock of its own: it is this machine's")
	default:
		compareClocks(stored.Time, sent, got, u)
	}
}

func compareClocks(at, sent, got time.Time, u *checkup) {
	const remedy = "run NTP on this machine and on the store's server, and set the clock that is off; until then no key is made or replaced here"
	switch ahead, behind := sent.Sub(at), at.Sub(got); {
	case ahead > maxClock:
		u.found("clock", remedy, "this machine's clock is %s ahead of the store's", spoken(ahead))
	case behind > maxClock:
		u.found("clock", remedy, "this machine's clock is %s behind the store's", spoken(behind))
	default:
		u.ok("clock", "that of the store agrees with this machine's")
	}
}

// frozen is a store that is not changed.
type frozen struct{ keys.Store }

func (frozen) Save(context.Context, string, []byte, string) (string, error) {
	return "", errors.New("doctor changes nothing")
}

// checkRing checks the ring and whether the secrets unseal its keys.
func (d *doctorConfig) checkRing(ctx context.Context, s *site, secrets []secret, u *checkup) *keys.Status {
	st, err := s.status(ctx, nil)
	switch {
	case errors.Is(err, keys.ErrNoRing):
		u.found("ring", "check --issuer and --namespace, and that the store is the one of the program; a program that has run once has made its ring", "the store has no key ring of the name %s", shown(s.namespace))
		return nil
	case err != nil:
		text, remedy := split(err)
		u.found("ring", remedy, "%s", text)
		return nil
	}
	phases := map[string]int{}
	private := 0
	for _, k := range st.Keys {
		phases[k.Phase]++
		if k.Private {
			private++
		}
	}
	const runs = "check that a replica of the issuer runs (Authority.Run), that it may write to the store, and that its clock is right: its log names ring_write, ring_unseal or ring_clock"
	switch {
	case phases["current"] == 0:
		u.found("ring", runs, "no key of the ring may sign: no token is issued")
	case phases["next"] == 0:
		u.found("ring", runs, "the ring has no next key: nothing has changed it when it was due, and its last key will end")
	default:
		u.ok("ring", "%d keys: %d current, %d next, %d retired", len(st.Keys), phases["current"], phases["next"], phases["retired"])
	}
	if st.Unsealed > 0 && s.kind != "file" {
		u.found("sealing", "name the secrets in the program's Config.Secrets, and run 'sessiontoken keys reseal'; revoke the keys if others may have read the store", "%d private keys are in the clear: who reads the store can sign", st.Unsealed)
	}
	switch {
	case len(secrets) == 0:
		if !u.has("sealing") {
			u.skip("sealing", "no secret is named: set --secret-file")
		}
	case s.issuer == "":
		u.skip("sealing", "no issuer is named, which the keys of the secrets are derived with: set --issuer")
	default:
		d.checkSealing(ctx, s, secrets, u)
	}
	return &st
}

// checkSealing unseals each private key with the secrets.
func (d *doctorConfig) checkSealing(ctx context.Context, s *site, secrets []secret, u *checkup) {
	aead, err := s.sealingOf(secrets)
	if err != nil {
		u.found("sealing", "name the secrets of the program", "the secrets cannot be used: %v", err)
		return
	}
	st, err := s.status(ctx, aead.AEAD)
	if err != nil {
		text, remedy := split(err)
		u.found("ring", remedy, "%s", text)
		return
	}
	const remedy = "give the program and this command the secret that sealed them, and the issuer that it was sealed for; a key that nothing unseals must be revoked: 'sessiontoken keys revoke'"
	opened := 0
	var closed []string
	for _, k := range st.Keys {
		switch {
		case !k.Private:
		case k.SealingKey != "" && !slices.Contains(aead.ids, k.SealingKey):
			closed = append(closed, k.Phase+" "+shown(k.KeyID))
		default:
			opened++
		}
	}
	if len(closed) > 0 {
		u.found("sealing", remedy, "the secrets do not unseal these keys: %s", strings.Join(closed, ", "))
		return
	}
	// Reseal unseals every key. The AEAD is one without the ids of its keys, and
	// the store refuses what it would write.
	ring, err := keys.NewRing(keys.RingConfig{Store: keys.Sealed(frozen{s.ring}, struct{ keys.AEAD }{aead}), Name: s.namespace, Logger: discard})
	if err == nil {
		err = ring.Reseal(ctx)
	}
	if errors.Is(err, keys.ErrUnseal) {
		u.found("sealing", remedy, "a private key does not unseal, although its secret is given: it was changed in the store, or is another key's, or of another ring")
		return
	}
	u.ok("sealing", "the secrets unseal %d private keys", opened)
}

// checkRevocations reads the log of revocations.
func checkRevocations(ctx context.Context, s *site, u *checkup) {
	var cursor string
	entries, births := 0, 0
	began := time.Now()
	for {
		page, err := s.all.Since(ctx, cursor)
		if err != nil {
			text, remedy := split(err)
			u.found("revocations", remedy, "the revocations cannot be read: %s", text)
			return
		}
		for _, e := range page.Entries {
			if e.Namespace == s.namespace {
				if e.Scope == revoke.Birth {
					births++
				}
				entries++
			}
		}
		if !page.More {
			break
		}
		cursor = page.Next
	}
	took := time.Since(began)
	switch {
	case births == 0:
		u.found("revocations", "check --namespace, and that the store is the one of the program; if its data was lost, see 'After a backup was restored' in OPERATING", "no program with the name %s has used this store for revocations", shown(s.namespace))
	case took > slowStore && entries < 100_000:
		u.found("lag", "look at the load and the disk of the store's server, and at the network to it", "reading %d revocations has taken %s: replicas know of a sign-out late", entries, spoken(took))
	default:
		u.ok("revocations", "they can be read; there are %d entries", entries)
	}
}

// checkSQLiteFile checks the file of a SQLite store.
func (d *doctorConfig) checkSQLiteFile(ctx context.Context, s *site, u *checkup) {
	var answer string
	if err := s.db.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&answer); err != nil || answer != "ok" {
		u.found("persistence", "restore the file from a backup, and then follow 'After a backup was restored' in OPERATING", "the file is damaged")
	} else if d.inMemory(filepath.Dir(s.path)) {
		u.found("persistence", "move the file to a disk", "the file is in a file system in memory: all of it is lost when the machine stops")
	} else {
		u.ok("persistence", "the file is sound, and each write is synchronous")
	}
	if err := tableIsThere(ctx, s, "sessiontoken_grants"); err != nil {
		u.found("schema", "let the program call CreateSchema, as Open of sqlstore/sqlite does, or run sqlstore.Schema", "the table sessiontoken_grants is missing, which an older release did not make")
	}
	checkFileModes(s.path, []string{s.path, s.path + "-wal", s.path + "-shm"}, u)
}

// beginningWith returns the files whose names begin with path. A FileStore adds
// the name of the ring to its path.
func beginningWith(path string) (all []string) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), filepath.Base(path)) {
			all = append(all, filepath.Join(filepath.Dir(path), e.Name()))
		}
	}
	return all
}

func tableIsThere(ctx context.Context, s *site, table string) error {
	var n int
	return s.db.QueryRowContext(ctx, "SELECT count(*) FROM "+table+" WHERE namespace IS NULL").Scan(&n)
}

// checkFileModes checks that others can neither read nor replace the files of a
// store, and that this user can write them.
func checkFileModes(path string, files []string, u *checkup) {
	if runtime.GOOS == "windows" {
		u.skip("permissions", "the rights on files are not looked at on Windows")
		return
	}
	before := len(u.all)
	for _, file := range files {
		info, err := os.Stat(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = checkPrivate(file, info)
		}
		if err != nil {
			text, remedy := split(err)
			u.found("permissions", remedy, "%s", text)
		}
		if f, err := os.OpenFile(file, os.O_RDWR, 0); err == nil {
			_ = f.Close()
		} else if !errors.Is(err, fs.ErrNotExist) {
			u.found("permissions", "run this as the user of the program, and give that user the right to write the file and its folder", "this user may not write %s", shown(file))
		}
	}
	dir := filepath.Dir(path)
	if info, err := os.Stat(dir); err == nil && info.Mode().Perm()&0o002 != 0 && info.Mode()&fs.ModeSticky == 0 {
		u.found("permissions", "run chmod o-w on the folder", "others may write to the folder %s, mode %04o, and so replace the store's file", shown(dir), info.Mode().Perm())
	}
	if len(u.all) == before {
		u.ok("permissions", "the file is its owner's alone")
	}
}

// checkPostgres checks the settings of a PostgreSQL server and the rights of its
// user.
func checkPostgres(ctx context.Context, s *site, u *checkup) {
	before := len(u.all)
	for _, want := range []struct{ setting, bad, remedy, loss string }{
		{"fsync", "off", "set fsync = on in postgresql.conf, and restart the server", "a crash of the machine damages the database"},
		{"full_page_writes", "off", "set full_page_writes = on in postgresql.conf, and reload it", "a crash of the machine may damage the database"},
		{"synchronous_commit", "off", "set synchronous_commit to on for the server, or for this user and database (ALTER ROLE … SET)", "a crash of the server loses sign-outs that were acknowledged"},
		{"default_transaction_read_only", "on", "set default_transaction_read_only to off for this user and database", "nothing can be written"},
	} {
		var got string
		if err := s.db.QueryRowContext(ctx, "SELECT current_setting($1)", want.setting).Scan(&got); err != nil {
			u.found("persistence", "run this again when the server answers", "the setting %s cannot be read", want.setting)
		} else if got == want.bad {
			u.found("persistence", want.remedy, "%s is %s: %s", want.setting, got, want.loss)
		}
	}
	for _, table := range texts(ctx, s, "SELECT relname FROM pg_class WHERE oid IN (SELECT to_regclass(t) FROM unnest(ARRAY['sessiontoken_rings', 'sessiontoken_revocations', 'sessiontoken_families', 'sessiontoken_grants']) t) AND relpersistence <> 'p' ORDER BY 1", u) {
		u.found("persistence", "run ALTER TABLE "+table+" SET LOGGED", "the table %s is unlogged: a crash of the server empties it", table)
	}
	if len(u.all) == before {
		u.ok("persistence", "fsync, full_page_writes and synchronous_commit are on")
	}
	before = len(u.all)
	for _, table := range texts(ctx, s, "SELECT t FROM unnest(ARRAY['sessiontoken_grants']) t WHERE to_regclass(t) IS NULL", u) {
		u.found("schema", "let the program call CreateSchema, as Open of sqlstore/postgres does, or run sqlstore.Schema", "the table %s is missing, which an older release did not make", table)
	}
	rights := texts(ctx, s, `SELECT p || ' on ' || t FROM unnest(ARRAY['sessiontoken_rings', 'sessiontoken_revocations', 'sessiontoken_families', 'sessiontoken_grants']) t,
		unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) p WHERE to_regclass(t) IS NOT NULL AND NOT has_table_privilege(to_regclass(t), p) ORDER BY t, p`, u)
	if len(rights) > 0 {
		u.found("permissions", "grant the user SELECT, INSERT, UPDATE and DELETE on the tables that begin with sessiontoken_", "the store's user lacks %s", strings.Join(rights, ", "))
	}
	if len(u.all) == before {
		u.ok("permissions", "the store's user may read and write the tables")
	}
	var standbys int
	var lag float64
	err := s.db.QueryRowContext(ctx, "SELECT count(*), coalesce(max(extract(epoch FROM replay_lag)), 0)::float8 FROM pg_stat_replication").Scan(&standbys, &lag)
	switch {
	case err != nil:
		u.skip("lag", "the standbys cannot be seen by this user")
	case lag > slowReplica.Seconds():
		u.found("lag", "look at the load, the disk and the network of the standby: what it has not got is lost if it takes over", "a standby is %.0f s behind", lag)
	case standbys > 0:
		u.ok("lag", "%d standbys, at most %.1f s behind", standbys, lag)
	}
}

// slowReplica is when a copy is too far behind to take over.
const slowReplica = 10 * time.Second

// texts returns the rows of a query of one column.
func texts(ctx context.Context, s *site, query string, u *checkup) (all []string) {
	rows, err := s.db.QueryContext(ctx, query)
	if err == nil {
		defer rows.Close()
		for rows.Next() {
			var text string
			if err = rows.Scan(&text); err != nil {
				break
			}
			all = append(all, text)
		}
		if err == nil {
			err = rows.Err()
		}
	}
	if err != nil {
		u.found("store", "run this again when the server answers", "the server's catalog cannot be read: %v", err)
	}
	return all
}

// redisProbes are commands that the store needs, each in a form that changes
// nothing if the key does not exist.
var redisProbes = [][]any{
	{"get"}, {"exists"}, {"hget", "f"}, {"hmget", "f"}, {"pttl"}, {"del"},
	{"set", "v", "xx"}, {"pexpireat", "1"}, {"xadd", "nomkstream", "*", "f", "v"}, {"xdel", "1-1"},
	{"xrange", "-", "+", "count", "1"}, {"xrevrange", "+", "-", "count", "1"},
	{"zadd", "xx", "1", "m"}, {"zrem", "m"}, {"zrange", "0", "0"}, {"zrangebyscore", "0", "0"}, {"zremrangebyscore", "0", "0"},
}

// checkRedis checks the settings of a Redis server and the rights of its user.
func checkRedis(ctx context.Context, at string, u *checkup) {
	client, params, err := redisClient(at)
	if err != nil {
		return // the store is open with the same URL
	}
	defer client.Close()
	prefix := params.prefix
	if prefix == "" {
		prefix = "sessiontoken"
	}
	if cluster, ok := client.(*redis.ClusterClient); ok {
		node, err := cluster.MasterForKey(ctx, "{"+prefix+"}:ring")
		if err != nil {
			u.found("store", "check that all nodes of the Cluster run", "the node that has the keys is not found: %v", err)
			return
		}
		checkRedisServer(ctx, node, params, u)
	} else if one, ok := client.(*redis.Client); ok {
		checkRedisServer(ctx, one, params, u)
	}
	var lacks []string
	key := "{" + prefix + "}:doctor"
	for _, probe := range redisProbes {
		args := slices.Insert(slices.Clone(probe), 1, any(key))
		if err := client.Do(ctx, args...).Err(); err != nil && strings.Contains(err.Error(), "NOPERM") {
			lacks = append(lacks, "+"+fmt.Sprint(probe[0]))
		}
	}
	if err := client.Eval(ctx, "return 1", []string{key}).Err(); err != nil && strings.Contains(err.Error(), "NOPERM") {
		lacks = append(lacks, "+eval")
	}
	if len(lacks) > 0 {
		u.found("permissions", "permit "+strings.Join(lacks, " ")+" to the user in the server's ACL, on the keys ~{"+prefix+"}:*; the whole list is in the documentation of package redisstore", "the store's user may not run %d of the commands that the store needs", len(lacks))
	} else {
		u.ok("permissions", "the store's user may run what the store needs")
	}
}

func checkRedisServer(ctx context.Context, node *redis.Client, params redisParams, u *checkup) {
	before := len(u.all)
	for _, want := range []struct{ setting, value, remedy, loss string }{
		{"appendonly", "yes", "set appendonly yes in redis.conf (CONFIG SET appendonly yes, and CONFIG REWRITE)", "the server loses acknowledged sign-outs, keys and sessions when it is killed"},
		{"appendfsync", "always", "set appendfsync always in redis.conf", "the server loses the last second's acknowledged writes when it is killed"},
		{"maxmemory-policy", "noeviction", "set maxmemory-policy noeviction, and give the server enough memory", "the server drops revocations and signed-in users when its memory is full"},
	} {
		got, err := node.ConfigGet(ctx, want.setting).Result()
		if err != nil {
			u.found("persistence", "permit +config|get to the store's user, or read "+want.setting+" at the server: it must be "+want.value, "the setting %s cannot be read, so that it is not known whether the server keeps what it acknowledges", want.setting)
			break
		}
		if got[want.setting] != want.value {
			u.found("persistence", want.remedy, "%s is %s: %s", want.setting, shown(got[want.setting]), want.loss)
		}
	}
	info := redisInfo(ctx, node)
	for _, bad := range []struct{ field, value, remedy, text string }{
		{"aof_last_write_status", "err", "look at the server's log and at the room on its disk", "the server could not write its append-only file"},
		{"loading", "1", "wait until the server has loaded its data", "the server still loads its data"},
	} {
		if info[bad.field] == bad.value {
			u.found("persistence", bad.remedy, "%s", bad.text)
		}
	}
	if len(u.all) == before {
		u.ok("persistence", "appendonly, appendfsync always and noeviction are set")
	}
	switch replicas, _ := strconv.Atoi(info["connected_slaves"]); {
	case info["role"] == "slave":
		u.found("standby", "name the master in the URL of the store, or its Sentinels", "a replica answers, whose copy may lag")
	case info["role"] != "" && replicas < params.replicas:
		u.found("lag", "start the replicas, or lower wait_replicas (Config.WaitReplicas): until then no write is acknowledged", "%d replicas are connected, and each write waits for %d", replicas, params.replicas)
	case replicas > 0:
		if lag := replicaLag(info); lag > slowReplica {
			u.found("lag", "look at the load and the network of the replica: what it has not got is lost if it takes over", "a replica is %s behind", spoken(lag))
		} else {
			u.ok("lag", "%d replicas, at most %s behind", replicas, spoken(lag))
		}
	}
}

// redisInfo returns what INFO says, or nothing if the user may not ask.
func redisInfo(ctx context.Context, node *redis.Client) map[string]string {
	all := map[string]string{}
	for _, section := range []string{"persistence", "replication"} {
		text, err := node.Info(ctx, section).Result()
		if err != nil {
			return all
		}
		for line := range strings.Lines(text) {
			if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
				all[name] = value
			}
		}
	}
	return all
}

// replicaLag returns the longest time since a replica has acknowledged.
func replicaLag(info map[string]string) (longest time.Duration) {
	for name, value := range info {
		if !strings.HasPrefix(name, "slave") {
			continue
		}
		for field := range strings.SplitSeq(value, ",") {
			if n, ok := strings.CutPrefix(field, "lag="); ok {
				if seconds, err := strconv.Atoi(n); err == nil {
					longest = max(longest, time.Duration(seconds)*time.Second)
				}
			}
		}
	}
	return longest
}
