/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Writes the seeds of the corpora that are made, not found: one well-formed input of each shape.
 *
 *   cc -std=c11 -D_GNU_SOURCE -Ilib -o seeds tests/fuzz/seeds.c lib/wire/[a-z]*.c \
 *      lib/pipeline/frame.c lib/base/[a-z]*.c -lxxhash && ./seeds tests/fuzz/corpus
 *
 * The other files of a corpus were found by fuzzing and reduced with -merge=1.
 */
#include "pipeline/frame.h"
#include "wire/client.h"
#include "wire/control.h"
#include "wire/hermes.h"
#include "wire/host.h"
#include "wire/zab.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define HASH 0x1234abcdu

static const char *root;
static uint8_t k[CHP_PAYLOAD_BYTES_MAX];
static uint32_t k_len;

static void
write_seed(const char *target, const char *name, const void *data, size_t len)
{
	char path[512];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", root, target);
	mkdir(path, 0777);
	snprintf(path, sizeof(path), "%s/%s/%s", root, target, name);
	f = fopen(path, "wb");
	if (f == NULL || fwrite(data, 1, len, f) != len || fclose(f) != 0) {
		perror(path);
		exit(1);
	}
}

static struct chp_prelude
prelude(enum chp_packet_kind kind)
{
	return (struct chp_prelude){
		.magic = CHP_WIRE_MAGIC,
		.version = CHP_WIRE_VERSION,
		.kind = (uint8_t)kind,
		.cluster_hash = HASH,
	};
}

/* ---- peers ---- */

static void
begin_peer(uint64_t seq)
{
	struct chp_peer_header *h = (void *)k;

	memset(k, 0, sizeof(k));
	*h = (struct chp_peer_header){
		.prelude = prelude(CHP_PACKET_PEER),
		.from = 1,
		.to = 0,
		.shard = 3,
		.from_incarnation = 101,
		.to_incarnation = 100,
		.epoch = 1,
		.session = 1,
		.seq = seq,
		.ack = 7,
		.sack = 2,
		.grant = 64,
	};
	k_len = sizeof(*h);
}

static void
add_inv(uint8_t flags, const char *key, uint32_t key_len, uint32_t value_len)
{
	struct chp_hermes_inv *m = (void *)(k + k_len);

	*m = (struct chp_hermes_inv){
		.message = { .type = CHP_HERMES_INV,
			     .flags = CHP_MESSAGE_BEGIN,
			     .len = (uint16_t)chp_hermes_inv_bytes(key_len, value_len),
			     .op = 5 },
		.generation = 1,
		.key_len = (uint8_t)key_len,
		.inv_flags = flags,
		.version = 4 << 16 | 2,
		.base = 2 << 16 | 1,
		.value_total = value_len,
	};
	memcpy(m + 1, key, key_len);
	memset((uint8_t *)(m + 1) + key_len, 'v', value_len);
	k_len += m->message.len;
}

static void
add_short(uint8_t type)
{
	struct chp_hermes_ack *m = (void *)(k + k_len);

	*m = (struct chp_hermes_ack){
		.message = { .type = type, .len = sizeof(*m), .op = 5 },
		.generation = 1,
		.version = 4 << 16 | 2,
	};
	k_len += (uint32_t)sizeof(*m);
}

/* FETCH or OFFER. */
static void
add_question(uint8_t type, const char *key)
{
	struct chp_zab_fetch *m = (void *)(k + k_len);

	*m = (struct chp_zab_fetch){
		.message = { .type = type,
			     .len = (uint16_t)chp_align_u32((uint32_t)(sizeof(*m) + strlen(key)), CHP_MESSAGE_ALIGN),
			     .op = 5 },
		.epoch = 1 << 16 | 1,
		.tag = 7,
		.key_len = (uint8_t)strlen(key),
	};
	memcpy(m + 1, key, strlen(key));
	k_len += m->message.len;
}

static void
add_fetched(enum chp_zab_fetched_status status, uint64_t version, const char *value)
{
	struct chp_zab_fetched *m = (void *)(k + k_len);

	*m = (struct chp_zab_fetched){
		.message = { .type = CHP_ZAB_FETCHED,
			     .len = (uint16_t)chp_align_u32((uint32_t)(sizeof(*m) + strlen(value)), CHP_MESSAGE_ALIGN),
			     .op = 5 },
		.epoch = 1 << 16 | 1,
		.version = version,
		.tag = 7,
		.value_total = (uint32_t)strlen(value),
		.status = (uint8_t)status,
	};
	memcpy(m + 1, value, strlen(value));
	k_len += m->message.len;
}

static void
add_restored(const char *key, const char *value)
{
	struct chp_zab_propose *m = (void *)(k + k_len);
	const uint32_t key_len = (uint32_t)strlen(key), value_len = (uint32_t)strlen(value);

	*m = (struct chp_zab_propose){
		.message = { .type = CHP_ZAB_PROPOSE,
			     .flags = CHP_MESSAGE_BEGIN,
			     .len = (uint16_t)chp_zab_propose_bytes(key_len, value_len),
			     .op = CHP_OP_NONE },
		.epoch = 1 << 16 | 1,
		.entry_epoch = 1 << 16 | 1,
		.index = (UINT64_C(1) << CHP_ZAB_GENERATION_SHIFT) + 1,
		.number = 5,
		.value_total = value_len,
		.key_len = (uint8_t)key_len,
		.entry_flags = CHP_ZAB_RESTORED,
	};
	memcpy(m + 1, key, key_len);
	memcpy((uint8_t *)(m + 1) + key_len, value, value_len);
	k_len += m->message.len;
}

/* What ZAB's replicas say to each other after a cold start. */
static void
zab_peers(void)
{
	begin_peer(8);
	add_question(CHP_ZAB_OFFER, "a key of more than one word");
	add_question(CHP_ZAB_FETCH, "key");
	chp_peer_seal(k, k_len);
	write_seed("fuzz_peer", "zab_questions", k, k_len);
	begin_peer(9);
	add_fetched(CHP_ZAB_FETCH_FOUND, 5, "the value that it had");
	add_fetched(CHP_ZAB_FETCH_TOMBSTONE, 5, "");
	add_fetched(CHP_ZAB_FETCH_ABSENT, 0, "");
	add_fetched(CHP_ZAB_FETCH_AGAIN, 0, "");
	add_fetched(CHP_ZAB_FETCH_KNOWN, 0, "");
	chp_peer_seal(k, k_len);
	write_seed("fuzz_peer", "zab_answers", k, k_len);
	begin_peer(10);
	add_restored("key", "the value that it had");
	chp_peer_seal(k, k_len);
	write_seed("fuzz_peer", "zab_restored", k, k_len);
}

static void
peers(void)
{
	begin_peer(0);
	chp_peer_seal(k, k_len);
	write_seed("fuzz_peer", "ack_only", k, k_len);
	begin_peer(8);
	add_inv(0, "key", 3, 32);
	add_short(CHP_HERMES_ACK);
	add_short(CHP_HERMES_VAL);
	add_inv(CHP_INV_RMW | CHP_INV_TOMBSTONE, "deleted", 7, 0);
	add_inv(CHP_INV_SESSION, "\1\0\0\0\0\0\1\0", 8, 0);
	chp_peer_seal(k, k_len);
	write_seed("fuzz_peer", "messages", k, k_len);
}

/* ---- frames ---- */

static void
frames(void)
{
	static const struct chp_frame_from self = { .mac = { 2, 0, 10, 0, 0, 1 }, .address = 0x0a000001 };
	static uint8_t f[256];
	struct chp_icmp *icmp = (void *)f;
	struct chp_address to = { .ip = chp_be32(self.address), .mac = { 2, 0, 10, 0, 0, 1 } };

	begin_peer(0);
	chp_peer_seal(k, k_len);
	memcpy(f + CHP_DIRECT_BYTES, k, k_len);
	chp_frame_direct(f, k_len, &self, self.mac, 1, 0, 3);
	write_seed("fuzz_frame", "direct", f, CHP_DIRECT_BYTES + k_len);
	write_seed("fuzz_frame", "direct_padded", f, sizeof(f));
	memcpy(f + CHP_FRAME_BYTES, k, k_len);
	chp_frame_build(f, k_len, &self, &to, true);
	write_seed("fuzz_frame", "udp", f, CHP_FRAME_BYTES + k_len);
	chp_frame_arp(f, CHP_ARP_REQUEST, &self, NULL, self.address);
	write_seed("fuzz_frame", "arp", f, sizeof(struct chp_arp));
	chp_frame_build(f, 0, &self, &to, false);
	icmp->ip.protocol = 1;
	icmp->ip.checksum = 0;
	icmp->ip.checksum = chp_internet_checksum(&icmp->ip, sizeof(icmp->ip), 0);
	icmp->type = 8;
	icmp->code = 0;
	icmp->checksum = 0;
	icmp->rest = 1;
	icmp->checksum = chp_internet_checksum(&icmp->type, 8, 0);
	write_seed("fuzz_frame", "echo", f, sizeof(*icmp));
}

/* ---- clients ---- */

static void
add_request(uint8_t opcode, const char *key, uint32_t value_len)
{
	struct chp_request *r = (void *)(k + k_len);
	uint32_t key_len = (uint32_t)strlen(key);

	*r = (struct chp_request){
		.opcode = opcode,
		.len = (uint16_t)chp_request_bytes(key_len, value_len),
		.key_len = (uint8_t)key_len,
		.request = 1,
		.value_total = value_len,
	};
	memcpy(r + 1, key, key_len);
	memset((uint8_t *)(r + 1) + key_len, 'v', value_len);
	k_len += r->len;
}

static void
clients(void)
{
	struct chp_request_header *q = (void *)k;
	struct chp_reply_header *h = (void *)k;
	struct chp_reply_message *r = (void *)(h + 1);

	memset(k, 0, sizeof(k));
	*q = (struct chp_request_header){ .prelude = prelude(CHP_PACKET_REQUEST), .shard = 3 };
	k_len = sizeof(*q);
	for (uint8_t op = 0; op < 40; op++)
		if (op == 0 || chp_opcode_name(op) != NULL)
			add_request(op, op <= CHP_OPCODE_DECR ? "key" : "",
				    op == CHP_OPCODE_PUT || op == CHP_OPCODE_CAS ? 20 : 0);
	((struct chp_request *)(void *)(q + 1))->flags = 0xff;
	add_request(CHP_OPCODE_GET, "key", 0);
	((struct chp_request *)(void *)(k + k_len - chp_request_bytes(3, 0)))->flags = CHP_REQUEST_RELAXED;
	write_seed("fuzz_client", "every_operation", k, k_len);
	memset(k, 0, sizeof(k));
	*h = (struct chp_reply_header){ .prelude = prelude(CHP_PACKET_REPLY), .epoch = 1 };
	*r = (struct chp_reply_message){
		.opcode = CHP_OPCODE_GET,
		.len = (uint16_t)chp_reply_bytes(5),
		.request = 1,
		.flags = CHP_REPLY_RELAXED,
		.value_total = 5,
		.version = 131073,
	};
	memcpy(r + 1, "value", 5);
	write_seed("fuzz_client", "reply", k, sizeof(*h) + r->len);
}

/* ---- the channel to the host ---- */

static void
begin_host(uint64_t seq)
{
	begin_peer(seq);
	struct chp_peer_header *h = (void *)k;

	h->prelude = prelude(CHP_PACKET_HOST);
	h->from = h->to = 0;
	h->epoch = h->grant = 0;
}

static void *
add_host(uint8_t type, uint32_t op, uint32_t len)
{
	struct chp_message *m = (void *)(k + k_len);

	*m = (struct chp_message){ .type = type, .len = (uint16_t)len, .op = op };
	k_len += len;
	return m;
}

static void
add_host_item(uint8_t type, uint32_t op, uint8_t flags, const char *key, uint32_t value_len)
{
	const uint32_t key_len = (uint32_t)strlen(key);
	struct chp_host_item *m = add_host(type, op, chp_host_item_bytes(key_len, value_len));

	m->version = 5 << 16 | 1;
	m->value_len = value_len;
	m->key_len = (uint8_t)key_len;
	m->item_flags = flags;
	memcpy(m + 1, key, key_len);
}

/* Messages of one shape: life, epoch or batch behind the header. */
static void
add_host_number(uint8_t type, uint32_t len, uint64_t number)
{
	struct chp_host_life *m = add_host(type, CHP_OP_NONE, len);

	m->life = number;
}

static void
host_links(void)
{
	struct chp_host_load *load;
	struct chp_host_loaded *loaded;
	struct chp_host_scan *scan;

	begin_host(1);
	add_host_number(CHP_HOST_BEGIN, sizeof(struct chp_host_life), 1);
	add_host_item(CHP_HOST_PUT, CHP_OP_NONE, CHP_HOST_RMW, "counter", 20);
	add_host_item(CHP_HOST_PUT, CHP_OP_NONE, CHP_HOST_TOMBSTONE, "gone", 0);
	add_host_number(CHP_HOST_FLUSH, sizeof(struct chp_host_batch), 1);
	((struct chp_host_batch *)(void *)(k + k_len - sizeof(struct chp_host_batch)))->items = 2;
	load = add_host(CHP_HOST_LOAD, 3, chp_host_load_bytes(5));
	load->key_len = 5;
	scan = add_host(CHP_HOST_SCAN, 64, sizeof(*scan));
	scan->bytes = 1000;
	scan->scan_flags = CHP_HOST_SCAN_START;
	add_host_number(CHP_HOST_RECORD, sizeof(struct chp_host_record), 4);
	chp_peer_seal(k, k_len);
	write_seed("fuzz_host", "from_shard", k, k_len);

	begin_host(2);
	add_host_number(CHP_HOST_BEGUN, sizeof(struct chp_host_life), 1);
	add_host_number(CHP_HOST_DURABLE, sizeof(struct chp_host_batch), 1);
	loaded = add_host(CHP_HOST_LOADED, 3, chp_host_loaded_bytes(9));
	loaded->version = 1 << 16;
	loaded->value_len = 9;
	add_host_item(CHP_HOST_ITEM, 64, CHP_HOST_OLD, "old", 4);
	add_host(CHP_HOST_SCANNED, 64, sizeof(struct chp_host_scanned));
	add_host_number(CHP_HOST_RECORDED, sizeof(struct chp_host_record), 4);
	add_host(CHP_HOST_STATE, CHP_OP_NONE, sizeof(struct chp_host_state));
	chp_peer_seal(k, k_len);
	write_seed("fuzz_host", "from_host", k, k_len);
}

static void
host_hello(const char *name, uint8_t type, uint32_t len)
{
	struct chp_host_hello *h = (void *)k;

	memset(k, 0, sizeof(k));
	*h = (struct chp_host_hello){
		.prelude = prelude(CHP_PACKET_HOST_HELLO),
		.type = type,
		.channel_version = CHP_CHANNEL_VERSION,
		.refusal = type == CHP_HOST_REFUSED ? CHP_HOST_NO_STORE : CHP_HOST_OK,
		.shards = 4,
		.number = 1,
		.incarnation = 100,
		.to_incarnation = type == CHP_HOST_HELLO ? 0 : 101,
		.key_bytes_max = 250,
		.value_bytes_max = 1024,
		.payload_bytes_max = CHP_PAYLOAD_BYTES_MIN,
	};
	if (type == CHP_HOST_WELCOME) {
		h->put_bytes = 65536;
		h->loads = 64;
		h->life = 3;
	}
	chp_peer_seal(k, len);
	write_seed("fuzz_host", name, k, len);
}

static void
hosts(void)
{
	host_links();
	host_hello("hello", CHP_HOST_HELLO, CHP_PAYLOAD_BYTES_MIN);
	host_hello("welcome", CHP_HOST_WELCOME, sizeof(struct chp_host_hello));
	host_hello("refused", CHP_HOST_REFUSED, sizeof(struct chp_host_hello));
}

/* ---- the host's end of a shard: a script as fuzz_dsi.c reads it; a 0 is the truth ---- */

static void
host_ends(void)
{
	static const uint8_t script[] = {
		0, 0, 0, 0, 0, 0, 0, 0, 3,             /* HELLO */
		1, 0, 0, 0, 0, 0, 1, 0, 0, 3,          /* BEGIN of a life */
		4, 9, 10, 3,                           /* which the store has, later */
		1, 0, 0, 0, 0, 0, 5,                   /* two PUTs and their FLUSH, a LOAD and a SCAN */
		6, 1, 9, 0, 1, 6, 2, 0, 0, 2, 1, 0, 0, 3, 1, 1, 1, 4, 1, 0, 100, 1, 3,
		4, 0, 4, 0, 0, 0, 0, 0, 9, 4, 0, 0, 250, 3, 5, 5, 5, 9, 12, 3, /* the store completes all of it */
		1, 0, 0, 0, 0, 0, 1, 2, 5, 0, 3,       /* RECORD of an epoch */
		4, 0, 7, 1, 200, 0, 3, 9, 30, 3,       /* done; the store is slow; time goes by */
	};

	write_seed("fuzz_dsi", "session", script, sizeof(script));
}

/* ---- control: rows of u16 length, u8 choices, bytes, as fuzz_control.c reads them ---- */

static void
add_control(enum chp_control_type type, uint32_t len, uint8_t choices)
{
	union {
		struct chp_control_header header;
		struct chp_control_hello hello;
		struct chp_control_view view;
		struct chp_control_heartbeat heartbeat;
		struct chp_control_refused refused;
		uint8_t bytes[256];
	} p = { .header = { .type = (uint8_t)type } };

	if (type == CHP_CONTROL_HELLO || type == CHP_CONTROL_HELLO_SHORT) {
		p.hello.n_members = 3;
		p.hello.payload_bytes = CHP_PAYLOAD_BYTES_MIN;
		p.hello.heard = p.hello.heard_full = 7;
	} else if (type == CHP_CONTROL_REFUSED) {
		p.refused.reason = CHP_REFUSED_ALIVE;
	} else if (type == CHP_CONTROL_HEARTBEAT || type == CHP_CONTROL_GRANT) {
		p.heartbeat.lease_ns = 300000000;
	} else if (len >= sizeof(p.view)) {
		p.view.voters = 3;
	}
	k[k_len++] = (uint8_t)len;
	k[k_len++] = (uint8_t)(len >> 8);
	k[k_len++] = choices;
	memcpy(k + k_len, &p, len);
	k_len += len;
}

/* Choices of fuzz_control.c. */
enum { PAD = 1 << 3, OTHER = 1 << 4, VIEW = 1 << 5, LATER = 1 << 6 };

static void
add_forming(void)
{
	k_len = 0;
	for (uint8_t node = 1; node <= 2; node++) {
		add_control(CHP_CONTROL_HELLO_SHORT, sizeof(struct chp_control_hello), node);
		add_control(CHP_CONTROL_HELLO, sizeof(struct chp_control_hello), node | PAD);
		add_control(CHP_CONTROL_FOUNDING, chp_control_view_bytes(3), node | VIEW);
	}
}

static void
controls(void)
{
	const uint32_t hello = sizeof(struct chp_control_hello), view = chp_control_view_bytes(3);
	const uint32_t ballot = sizeof(struct chp_control_ballot);
	const uint32_t beat = sizeof(struct chp_control_heartbeat);

	add_forming();
	write_seed("fuzz_control", "forming", k, k_len);
	add_control(CHP_CONTROL_HEARTBEAT, beat, 1);
	add_control(CHP_CONTROL_GRANT, sizeof(struct chp_control_grant), 2);
	write_seed("fuzz_control", "leases", k, k_len);
	/* Node 2 is suspected: ours is the proposal. */
	for (uint32_t i = 0; i < 2; i++)
		add_control(CHP_CONTROL_HEARTBEAT, beat, 1 | LATER);
	add_control(CHP_CONTROL_PROMISE, ballot, 1);
	add_control(CHP_CONTROL_HEARTBEAT, beat, 1 | LATER);
	add_control(CHP_CONTROL_ACCEPTED, ballot, 1);
	add_control(CHP_CONTROL_HELLO, hello, 2 | PAD | OTHER);
	for (uint32_t i = 0; i < 4; i++) {
		add_control(CHP_CONTROL_HELLO, hello, 2 | PAD);
		add_control(CHP_CONTROL_HEARTBEAT, beat, 1 | LATER);
	}
	add_control(CHP_CONTROL_PROMISE, view, 1 | VIEW);
	add_control(CHP_CONTROL_REJECTED, ballot, 1);
	write_seed("fuzz_control", "proposing", k, k_len);
	add_forming();
	add_control(CHP_CONTROL_PREPARE, ballot, 1);
	add_control(CHP_CONTROL_ACCEPT, view, 1 | VIEW);
	add_control(CHP_CONTROL_HEARTBEAT, beat, 2);
	add_control(CHP_CONTROL_DECIDED, view, 1 | VIEW);
	add_control(CHP_CONTROL_HELLO, hello, 2 | PAD | OTHER);
	write_seed("fuzz_control", "accepting", k, k_len);
	add_forming();
	add_control(CHP_CONTROL_HELLO, hello, 2 | PAD | OTHER);
	write_seed("fuzz_control", "restarted", k, k_len);
	k_len = 0;
	add_control(CHP_CONTROL_REFUSED, sizeof(struct chp_control_refused), 1);
	write_seed("fuzz_control", "refused", k, k_len);
}

static void
histories(void)
{
	static const char ok[] =
		"{\"t\":1,\"client\":1,\"req\":1,\"type\":\"invoke\",\"op\":\"put\",\"key\":\"k\","
		"\"value\":\"v\"}\n"
		"{\"t\":2,\"client\":1,\"req\":1,\"type\":\"ok\",\"op\":\"put\",\"key\":\"k\","
		"\"version\":131073}\n"
		"{\"t\":3,\"client\":2,\"req\":1,\"type\":\"invoke\",\"op\":\"get\","
		"\"key\":\"k\"}\n"
		"{\"t\":4,\"client\":2,\"req\":1,\"type\":\"ok\",\"value64\":\"dg==\","
		"\"version\":131073}\n"
		"{\"t\":5,\"client\":2,\"req\":2,\"type\":\"invoke\",\"op\":\"cas\",\"key\":\"k\","
		"\"value\":\"w\",\"expect\":131073}\n"
		"{\"t\":6,\"client\":2,\"req\":2,\"type\":\"unknown\"}\n";
	static const char stale[] =
		"{\"t\":1,\"client\":1,\"req\":1,\"type\":\"invoke\",\"op\":\"incr\",\"key\":\"k\","
		"\"delta\":1}\n"
		"{\"t\":2,\"client\":1,\"req\":1,\"type\":\"fail\",\"status\":\"not_found\"}\n"
		"{\"t\":3,\"client\":1,\"req\":2,\"type\":\"invoke\",\"op\":\"get\","
		"\"key\":\"k\"}\n"
		"{\"t\":4,\"client\":1,\"req\":2,\"type\":\"ok\",\"value\":\"unwritten\"}\n";

	write_seed("fuzz_history", "ok", ok, sizeof(ok) - 1);
	write_seed("fuzz_history", "violation", stale, sizeof(stale) - 1);
}

int
main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: seeds DIRECTORY\n");
		return 2;
	}
	root = argv[1];
	peers();
	zab_peers();
	frames();
	clients();
	controls();
	hosts();
	host_ends();
	histories();
	return 0;
}
