/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * scenario.c - text scenarios: a few lines of commands and the messages that must follow from them, for
 * reading as much as for testing.
 *
 * A file is a sequence of blocks: command lines, a line "----", the expected output, an empty line. Lines
 * that begin with # are comments. --rewrite puts what the commands gave in the place of what was expected.
 *
 *   nodes N [protocol= founding=silent election= lease= credits= window= keys= blocks= value= sessions= session_window=
 *            idle= shards= ops= down= chunk= log=] [hosts=yes batch= age= loads= busy= durability=datastore]
 *   put|add|replace|append|prepend NODE KEY VALUE   get|delete NODE KEY   cas NODE KEY VERSION VALUE
 *   incr|decr NODE KEY DELTA   open NODE   close NODE session=W.I
 *       a client's operation; those on keys take session=W.I req=N [lowest=N] [epoch=N]; "x*500" is 500 times
 *       x; without epoch= the client knows the newest view
 *   relaxed NODE KEY      a get that may be old   quorum NODE majority|all
 *   hold NODE             operations wait at the node until run; so do packets that arrive
 *   run NODE              run the node once with all that waits there
 *   arrive A>B [N]        packets from A to B reach B, which does not run yet
 *   deliver [A>B [N]]     they reach B and it runs; without a pair: everything, until all is quiet
 *   drop|duplicate|reverse A>B   what happens to packets on their way
 *   tick TIME             time passes; nodes run when they are due
 *   pass TIME             the same, and packets arrive at once
 *   cut NODE              packets from and to the node are lost   mend (no more)
 *   view [NODE] live=0,1 [learners=2]   a new view, which may still have sources=; with
 *                         NODE, only that one has it yet
 *   view NODE             the node enters the newest view
 *   cold live=0,1 sources=0,1 [learners=2]   the first view after a cold start, from the stores of these
 *   crash NODE   restart NODE (a new incarnation, empty)   reset A B (A resets its link to B)
 *   lease NODE on|off     whether the node has a lease; all have one at first
 *   copied                which nodes have a complete copy
 *   trace links|chatter on|off   packets, or messages that usually say nothing
 *   host NODE crash|start   store NODE hold|go   reads NODE fail|work   channel NODE off|on
 *       the node's host and its store, which waits with what it is asked for, or does it
 *   store [KEY]           what the stores hold
 *   state [KEY]   status   digest   counters NAME
 *
 * "h" in a pair is the host of the other: 0>h. A version is printed as counter.writer, and node n has writer n + 1
 * until it restarts: v2.1 is a write of node 0.
 * Messages are printed when they are sent, with the epoch if it is not 1; client lines are answers. After every
 * command the nodes' invariants and their agreement are checked.
 */
#include "kind.h"

#include "protocols/home.h"
#include "scene_host.h"
#include "wire/copy.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WAY_MAX 512u    /* packets on one way */
#define CALLS_MAX 1024u /* client operations of one scenario */
#define WORDS_MAX 16u
#define SIM_WRITERS_MAX 32u
#define BUFFERS_MAX 64u
/* Nodes, and behind them their hosts. */
#define ENDS_MAX (2 * SIM_NODES_MAX)
#define RUNS_MAX 1000u  /* runs after which "until quiet" has failed */
#define US UINT64_C(1000)
#define MS UINT64_C(1000000)

struct scene_packet {
	uint32_t len;
	uint8_t data[SIM_PACKET_BYTES];
};

/* Packets on their way, or in an inbox, oldest first. */
struct way {
	struct scene_packet *packet[WAY_MAX];
	uint32_t n;
};

/* A client operation: its bytes live as long as the scenario. */
struct call {
	struct chp_op op;
	char key[CHP_KEY_BYTES_MAX + 8];
	char value[CHP_VALUE_BYTES_MAX + 8];
};

struct scene_node {
	struct way inbox;
	uint32_t waiting[CHP_BATCH_MAX]; /* calls */
	uint32_t n_waiting;
	bool hold;
	bool has_view;                   /* enters the scene's view in its next run */
	bool no_lease;
	uint64_t wake_ns;
	uint64_t printed_seq[ENDS_MAX];
	uint32_t printed_session[ENDS_MAX];
};

struct answer {
	struct chp_reply reply;
	uint32_t call;
	uint8_t value[CHP_VALUE_BYTES_MAX];
};

struct scene {
	struct sim_world world; /* shards and who is alive: what the simulator's checks look at */
	struct scene_node node[ENDS_MAX];
	struct scene_host host[SIM_NODES_MAX];
	struct way way[ENDS_MAX][ENDS_MAX];
	struct call call[CALLS_MAX];
	uint32_t n_calls;
	struct answer answer[CHP_BATCH_MAX];
	uint32_t n_answers;
	uint64_t now_ns;
	uint64_t cut; /* nodes whose packets are lost */
	uint64_t channels_off; /* nodes whose packets to and from their hosts are */
	uint16_t last_writer;
	uint8_t node_of_writer[SIM_WRITERS_MAX]; /* who got a writer number */
	bool trace_links;
	bool chatter; /* messages that are dull are printed as well */
	bool silent;  /* and now none at all */
	FILE *out;
	char error[256];
};

struct words {
	char *word[WORDS_MAX];
	uint32_t n;
};

/* A command that cannot be carried out ends the file. Always false. */
static bool fail(struct scene *s, const char *format, ...) __attribute__((format(printf, 2, 3)));

static bool
fail(struct scene *s, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	if (s->error[0] == '\0')
		vsnprintf(s->error, sizeof(s->error), format, args);
	va_end(args);
	return false;
}

/* ------------------------------------------------------------------ words of a command */

/* The value of NAME=value among the words, which is taken out; NULL if there is none. */
static const char *
option(struct words *w, const char *name)
{
	const size_t len = strlen(name);

	for (uint32_t i = 0; i < w->n; i++) {
		if (strncmp(w->word[i], name, len) == 0 && w->word[i][len] == '=') {
			const char *value = w->word[i] + len + 1;

			w->n--;
			memmove(&w->word[i], &w->word[i + 1], (w->n - i) * sizeof(w->word[0]));
			return value;
		}
	}
	return NULL;
}

static bool
parse_u64(struct scene *s, const char *text, uint64_t *n)
{
	char *end;

	errno = 0;
	*n = strtoull(text, &end, 10);
	if (errno != 0 || end == text || *end != '\0')
		return fail(s, "\"%s\" is not a number", text);
	return true;
}

static bool
option_u32(struct scene *s, struct words *w, const char *name, uint32_t *n)
{
	const char *text = option(w, name);
	uint64_t value;

	if (text == NULL)
		return true;
	if (!parse_u64(s, text, &value))
		return false;
	*n = (uint32_t)value;
	return true;
}

static bool
parse_time(struct scene *s, const char *text, uint64_t *ns)
{
	static const struct {
		const char *name;
		uint64_t ns;
	} unit[] = { { "us", US }, { "ms", MS }, { "s", 1000 * MS } };
	char *end;
	uint64_t n = strtoull(text, &end, 10);

	*ns = 0;
	for (uint32_t i = 0; i < CHP_ARRAY_LEN(unit); i++) {
		if (end != text && strcmp(end, unit[i].name) == 0) {
			*ns = n * unit[i].ns;
			return true;
		}
	}
	return fail(s, "\"%s\" is not a time, as 5ms", text);
}

static bool
option_time(struct scene *s, struct words *w, const char *name, uint64_t *ns)
{
	const char *text = option(w, name);

	return text == NULL || parse_time(s, text, ns);
}

static bool
parse_node(struct scene *s, const char *text, uint32_t *node)
{
	uint64_t n;

	*node = 0;
	if (!parse_u64(s, text, &n))
		return false;
	if (n >= s->world.config.n_nodes)
		return fail(s, "there is no node %s", text);
	*node = (uint32_t)n;
	return true;
}

/* Whether there is such a node or host, alive or not. */
static bool
is_there(const struct scene *s, uint32_t end)
{
	if (end >= ENDS_MAX)
		return false;
	return end < SIM_NODES_MAX ? end < s->world.config.n_nodes : s->host[end - SIM_NODES_MAX].exists;
}

/* "0>1", "0>h" */
static bool
parse_pair(struct scene *s, const char *text, uint32_t *from, uint32_t *to)
{
	uint32_t n;

	*from = *to = 0;
	if (strlen(text) != 3 || text[1] != '>' || strspn(text, "0123456789>h") != 3)
		return fail(s, "\"%s\" is not a pair of nodes, as 0>1", text);
	n = (uint32_t)((text[0] == 'h' ? text[2] : text[0]) - '0');
	*from = text[0] == 'h' ? SIM_NODES_MAX + n : n;
	*to = text[2] == 'h' ? SIM_NODES_MAX + n : (uint32_t)(text[2] - '0');
	if (*from == *to || !is_there(s, *from) || !is_there(s, *to))
		return fail(s, "there is no way %s", text);
	return true;
}

/* A version "2.1" or a session "1.1": two numbers. */
static bool
parse_dotted(struct scene *s, const char *text, uint64_t *a, uint64_t *b)
{
	char *end;

	*a = strtoull(text, &end, 10);
	*b = 0;
	if (end == text || *end != '.')
		return fail(s, "\"%s\" is not two numbers, as 2.1", text);
	return parse_u64(s, end + 1, b);
}

static bool
parse_nodes(struct scene *s, const char *text, uint64_t *mask)
{
	*mask = 0;
	for (const char *at = text; *at != '\0'; at++) {
		if (isdigit(*at) && (uint32_t)(*at - '0') < s->world.config.n_nodes)
			*mask |= chp_bit((uint32_t)(*at - '0'));
		else if (*at != ',')
			return fail(s, "\"%s\" is not a list of nodes, as 0,1", text);
	}
	return true;
}

/* "x*500" is 500 times x. */
static bool
expand(struct scene *s, const char *word, char *to, size_t size, uint32_t *len)
{
	if (word[0] != '\0' && word[1] == '*') {
		uint64_t n;

		if (!parse_u64(s, word + 2, &n))
			return false;
		if (n > size)
			return fail(s, "\"%s\" is too long to ask for", word);
		memset(to, word[0], n);
		*len = (uint32_t)n;
		return true;
	}
	*len = (uint32_t)strlen(word);
	if (*len > size)
		return fail(s, "\"%s\" is too long to ask for", word);
	memcpy(to, word, *len);
	return true;
}

/* ------------------------------------------------------------------ printing */

static void
print_item(FILE *out, const struct sim_kind *kind, const struct chp_copy_item *m)
{
	if ((m->item_flags & CHP_COPY_SESSION) != 0) {
		uint64_t id;

		memcpy(&id, chp_copy_item_key(m), sizeof(id));
		fputs("ITEM session ", out);
		sim_print_session(out, id);
	} else {
		fputs("ITEM k=", out);
		sim_print_bytes(out, chp_copy_item_key(m), m->key_len);
	}
	sim_print_version(out, kind, " ", m->version);
	if ((m->item_flags & CHP_COPY_TOMBSTONE) != 0) {
		fputs(" deleted", out);
	} else if ((m->item_flags & CHP_COPY_SESSION) == 0) {
		fputs(" \"", out);
		sim_print_bytes(out, chp_copy_item_value(m), m->value_total);
		fputc('"', out);
	}
}

static void
print_record(FILE *out, const struct sim_kind *kind, const struct chp_copy_record *m)
{
	fputs("RECORD session ", out);
	sim_print_session(out, m->session);
	fprintf(out, " req %" PRIu64, m->request);
	sim_print_version(out, kind, " ", m->version);
}

static void
print_end(FILE *out, const struct chp_copy_end *m)
{
	fprintf(out, "END of %u, next %" PRIu64 " of %" PRIu64 "%s", m->items, m->next, m->total,
		(m->end_flags & CHP_COPY_DONE) != 0 ? ", done" : "");
}

static void
print_message(FILE *out, const struct sim_kind *kind, const struct chp_message *m)
{
	switch (m->type) {
	case CHP_COPY_REQUEST:
		fprintf(out, "REQUEST from %" PRIu64, ((const struct chp_copy_request *)(const void *)m)->cursor);
		break;
	case CHP_COPY_ITEM:
		print_item(out, kind, (const void *)m);
		break;
	case CHP_COPY_RECORD:
		print_record(out, kind, (const void *)m);
		break;
	case CHP_COPY_END:
		print_end(out, (const void *)m);
		break;
	default:
		kind->print(out, m);
	}
}

static void
print_link(FILE *out, const struct chp_peer_header *h)
{
	fprintf(out, "%u>%u ", h->from, h->to);
	if (h->seq == 0)
		fputs("no messages", out);
	else
		fprintf(out, "packet %" PRIu64, h->seq);
	fprintf(out, ", session %u, ack %" PRIu64, h->session, h->ack);
	for (uint64_t bits = h->sack; bits != 0; bits &= bits - 1)
		fprintf(out, " +%" PRIu64, h->ack + 2 + chp_first_bit(bits));
	fprintf(out, ", grant %" PRIu64 "%s\n", h->grant,
		(h->flags & CHP_PEER_ACK_NOW) != 0 ? ", answer wanted" : "");
}

static bool
is_alive(const struct scene *s, uint32_t end)
{
	return end < SIM_NODES_MAX ? s->world.node[end].alive : s->host[end - SIM_NODES_MAX].alive;
}

/* Whether what is sent on a way is lost for now. */
static bool
is_cut(const struct scene *s, uint32_t from, uint32_t to)
{
	if (from >= SIM_NODES_MAX || to >= SIM_NODES_MAX)
		return (s->channels_off & chp_bit(chp_min_u32(from, to))) != 0;
	return (s->cut & (chp_bit(from) | chp_bit(to))) != 0;
}

static void
print_way(FILE *out, uint32_t from, uint32_t to, const char *before)
{
	fputs(before, out);
	if (from < SIM_NODES_MAX)
		fprintf(out, "%u>", from);
	else
		fputs("h>", out);
	if (to < SIM_NODES_MAX)
		fprintf(out, "%u ", to);
	else
		fputs("h ", out);
}

static bool
is_dull(const struct sim_kind *kind, const struct chp_peer_header *h, const struct chp_message *m)
{
	return h->prelude.kind == CHP_PACKET_HOST ? scene_host_is_dull(m) : kind->is_dull(m);
}

/* A packet as it is sent: its messages, marked when they were sent before. */
static void
print_packet(struct scene *s, uint32_t source, uint32_t to, const struct scene_packet *p, const char *before)
{
	const struct chp_peer_header *h = (const void *)p->data;
	const struct sim_kind *kind = s->world.config.kind;
	struct scene_node *from = &s->node[source];
	/* What comes again on the channel says nothing that is new. */
	const bool hides = is_cut(s, source, to) || h->prelude.kind == CHP_PACKET_HOST;
	bool again;

	if (h->prelude.kind == CHP_PACKET_HOST_HELLO) {
		if (s->silent || !s->chatter)
			return;
		print_way(s->out, source, to, before);
		scene_host_print_hello(s->out, (const void *)p->data);
		fputc('\n', s->out);
		return;
	}
	if (from->printed_session[to] != h->session) {
		from->printed_session[to] = h->session;
		from->printed_seq[to] = 0;
	}
	again = *before == '\0' && h->seq != 0 && h->seq <= from->printed_seq[to];
	from->printed_seq[to] = chp_max_u64(from->printed_seq[to], h->seq);
	if (s->trace_links)
		print_link(s->out, h);
	for (uint32_t at = sizeof(*h); at < p->len;) {
		const struct chp_message *m = (const void *)(p->data + at);

		at += m->len;
		if (s->silent || (!s->chatter && (is_dull(kind, h, m) || (again && hides))))
			continue;
		print_way(s->out, source, to, before);
		if (h->epoch > 1)
			fprintf(s->out, "e%" PRIu64 " ", h->epoch);
		if (h->prelude.kind == CHP_PACKET_HOST)
			scene_host_print(s->out, kind, m);
		else
			print_message(s->out, kind, m);
		fputs(again ? " (sent again)\n" : "\n", s->out);
	}
}

static void
print_key(FILE *out, const struct call *c)
{
	if (c->op.opcode != CHP_OPCODE_SESSION_OPEN && c->op.opcode != CHP_OPCODE_SESSION_CLOSE &&
	    c->op.opcode != CHP_OPCODE_QUORUM) {
		fputc(' ', out);
		sim_print_bytes(out, (const uint8_t *)c->key, c->op.key.len);
	}
}

static void
print_answer(struct scene *s, const struct answer *a)
{
	const struct sim_kind *kind = s->world.config.kind;
	const struct chp_reply *r = &a->reply;
	FILE *out = s->out;

	fprintf(out, "client: %s", chp_opcode_name(r->opcode));
	print_key(out, &s->call[a->call]);
	if (r->opcode == CHP_OPCODE_GET && r->status == CHP_STATUS_OK) {
		fputs(" \"", out);
		sim_print_bytes(out, a->value, r->value_len);
		fputc('"', out);
	} else {
		fprintf(out, " %s", chp_status_name(r->status));
	}
	if (r->status == CHP_STATUS_WRONG_SHARD) {
		fprintf(out, ", it is in shard %u of %u", (unsigned)(r->number & UINT32_MAX),
			(unsigned)(r->number >> 32));
	} else if (r->status == CHP_STATUS_REDIRECT) {
		fprintf(out, " to node %" PRIu64, r->number);
	} else {
		if (r->version != 0)
			sim_print_version(out, kind, " ", r->version);
		if (r->status == CHP_STATUS_OK && r->opcode == CHP_OPCODE_SESSION_OPEN) {
			fputs(" session ", out);
			sim_print_session(out, r->number);
		} else if (r->status == CHP_STATUS_OK && r->opcode == CHP_OPCODE_QUORUM) {
			fprintf(out, " rule %s", chp_quorum_name(r->number));
		} else if (r->status == CHP_STATUS_OK &&
			   (r->opcode == CHP_OPCODE_INCR || r->opcode == CHP_OPCODE_DECR)) {
			fprintf(out, " number %" PRIu64, r->number);
		}
	}
	if (r->is_relaxed)
		fputs(" relaxed", out);
	if (r->session != 0)
		fprintf(out, " (req %" PRIu64 ")", r->request);
	fputc('\n', out);
}

/* ------------------------------------------------------------------ packets */

static bool
way_add(struct scene *s, struct way *w, const uint8_t *data, uint32_t len)
{
	struct scene_packet *p;

	if (w->n == WAY_MAX)
		return fail(s, "more than %u packets on one way", WAY_MAX);
	p = malloc(sizeof(*p));
	CHP_ASSERT(p != NULL);
	memcpy(p->data, data, len);
	p->len = len;
	w->packet[w->n++] = p;
	return true;
}

static void
way_forget(struct way *w, uint32_t n)
{
	memmove(w->packet, w->packet + n, (w->n - n) * sizeof(w->packet[0]));
	w->n -= n;
}

static void
way_drop(struct way *w, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		free(w->packet[i]);
	way_forget(w, n);
}

/* The first n packets from one node reach another. */
static bool
arrive(struct scene *s, uint32_t from, uint32_t to, uint32_t n)
{
	struct way *way = &s->way[from][to], *inbox = &s->node[to].inbox;

	n = chp_min_u32(n, way->n);
	if (!is_alive(s, to) || is_cut(s, from, to)) {
		way_drop(way, n);
		return true;
	}
	if (inbox->n + n > WAY_MAX)
		return fail(s, "more than %u packets wait at node %u", WAY_MAX, to);
	for (uint32_t i = 0; i < n; i++)
		inbox->packet[inbox->n++] = way->packet[i];
	way_forget(way, n);
	return true;
}

/* ------------------------------------------------------------------ a node runs */

static uint8_t *
take_answer(void *frontend, const struct chp_reply *r)
{
	struct scene *s = frontend;
	struct answer *a = &s->answer[s->n_answers++];

	CHP_ASSERT_OP(s->n_answers, <=, CHP_BATCH_MAX);
	a->reply = *r;
	memcpy(&a->call, r->origin->address, sizeof(a->call));
	CHP_ASSERT_OP(a->call, <, s->n_calls);
	return a->value;
}

static bool
send_all(struct scene *s, uint32_t n, const struct chp_effects *fx)
{
	for (uint32_t i = 0; i < s->n_answers; i++)
		print_answer(s, &s->answer[i]);
	for (uint32_t i = 0; i < fx->n_used; i++) {
		const struct chp_buffer *b = &fx->buffer[i];
		const struct chp_peer_header *h = (const void *)b->data;
		const uint32_t to = b->peer == CHP_TO_HOST ? SIM_NODES_MAX + n : b->peer;
		struct way *way = &s->way[n][to];
		const struct chp_message *m;

		for (uint32_t at = sizeof(*h); to < SIM_NODES_MAX && at < b->len; at += m->len) {
			m = (const void *)(b->data + at);
			s->world.config.kind->sends(&s->world, n, h, m);
		}

		chp_peer_seal(b->data, b->len);
		if (!way_add(s, way, b->data, b->len))
			return false;
		print_packet(s, n, to, way->packet[way->n - 1], "");
	}
	return true;
}

/* As the stage does that receives packets. */
static void
check_packet(const struct scene *s, uint32_t n, const struct chp_packet *p)
{
	const struct chp_shard_config *c = &s->world.config.shard;
	uint8_t kind = 0;

	CHP_ASSERT_OP(chp_packet_kind_of(p->data, p->len, &kind), ==, CHP_PACKET_OK);
	if (kind == CHP_PACKET_PEER)
		CHP_ASSERT_OP(chp_peer_check(p->data, p->len, c->cluster_hash, c->n_nodes, c->shards), ==,
			      CHP_PACKET_OK);
	else
		CHP_ASSERT(sim_channel_check(c, n, p->data, p->len));
}

/* Run a node once with all that waits there. */
static bool
run_once(struct scene *s, uint32_t n)
{
	static uint8_t bytes[BUFFERS_MAX][SIM_PACKET_BYTES];
	static struct chp_packet packet[WAY_MAX];
	struct scene_node *node = &s->node[n];
	struct chp_buffer buffer[BUFFERS_MAX];
	struct chp_op op[CHP_BATCH_MAX];
	struct chp_now now = { .ns = s->now_ns, .lease_until_ns = node->no_lease ? 0 : CHP_NEVER };
	struct chp_events in = { .packet = packet,
				 .n_packets = node->inbox.n,
				 .op = op,
				 .n_ops = node->n_waiting,
				 .view = node->has_view ? &s->world.view : NULL };
	struct chp_effects fx = { .buffer = buffer,
				  .n_buffers = BUFFERS_MAX,
				  .reply = take_answer,
				  .frontend = s,
				  .reply_room = CHP_BATCH_MAX };
	const struct sim_config *c = &s->world.config;

	for (uint32_t i = 0; i < in.n_packets; i++) {
		packet[i] = (struct chp_packet){ node->inbox.packet[i]->data, node->inbox.packet[i]->len };
		check_packet(s, n, &packet[i]);
	}
	for (uint32_t i = 0; i < in.n_ops; i++)
		op[i] = s->call[node->waiting[i]].op;
	for (uint32_t i = 0; i < BUFFERS_MAX; i++)
		buffer[i] = (struct chp_buffer){ .data = bytes[i] };
	s->n_answers = 0;
	if (node->has_view)
		s->world.node[n].shard_view = s->world.view;
	s->world.now_ns = s->now_ns;
	chp_shard_run(s->world.node[n].shard, &now, &in, &fx);
	chp_shard_check(s->world.node[n].shard);
	c->kind->ran(&s->world, n, &now);
	way_drop(&node->inbox, in.n_packets);
	node->n_waiting = 0;
	node->has_view = false;
	node->wake_ns = fx.wake_ns;
	return send_all(s, n, &fx);
}

/* The host's process takes its packets, its store what it is asked for. */
static bool
run_host(struct scene *s, uint32_t end)
{
	static uint8_t bytes[BUFFERS_MAX][SIM_PACKET_BYTES];
	const uint32_t n = end - SIM_NODES_MAX;
	struct way *inbox = &s->node[end].inbox, *way = &s->way[end][n];
	struct chp_dsi_packet packet[WAY_MAX];
	struct chp_dsi_buffer buffer[BUFFERS_MAX];
	struct chp_dsi_effects fx = { .buffer = buffer, .n_buffers = BUFFERS_MAX };

	for (uint32_t i = 0; i < inbox->n; i++)
		packet[i] = (struct chp_dsi_packet){ inbox->packet[i]->data, inbox->packet[i]->len };
	for (uint32_t i = 0; i < BUFFERS_MAX; i++)
		buffer[i] = (struct chp_dsi_buffer){ .data = bytes[i] };
	scene_host_run(&s->host[n], s->now_ns, packet, inbox->n, &fx);
	way_drop(inbox, inbox->n);
	s->node[end].wake_ns = s->host[n].wake_ns;
	for (uint32_t i = 0; i < fx.n_used; i++) {
		if (!way_add(s, way, buffer[i].data, buffer[i].len))
			return false;
		print_packet(s, end, n, way->packet[way->n - 1], "");
	}
	return true;
}

/* Run a node or host, and again while it says that it has more to do. */
static bool
run(struct scene *s, uint32_t n)
{
	uint32_t runs = 0;

	if (!is_alive(s, n))
		return true;
	do {
		if (!(n < SIM_NODES_MAX ? run_once(s, n) : run_host(s, n)))
			return false;
		if (++runs == RUNS_MAX)
			return fail(s, "node %u never comes to rest", n);
	} while (s->node[n].wake_ns <= s->now_ns);
	return true;
}

static bool
run_unless_held(struct scene *s, uint32_t n)
{
	return s->node[n].hold || run(s, n);
}

/* ------------------------------------------------------------------ commands: the world */

static void
scene_empty(struct scene *s)
{
	for (uint32_t a = 0; a < ENDS_MAX; a++) {
		way_drop(&s->node[a].inbox, s->node[a].inbox.n);
		for (uint32_t b = 0; b < ENDS_MAX; b++)
			way_drop(&s->way[a][b], s->way[a][b].n);
	}
	for (uint32_t n = 0; n < SIM_NODES_MAX; n++) {
		chp_shard_destroy(s->world.node[n].shard);
		scene_host_crash(&s->host[n]);
	}
	memset(s->host, 0, sizeof(s->host));
	if (s->world.watch != NULL)
		s->world.config.kind->forget(&s->world);
	free(s->world.watch);
	sim_once_forget(&s->world);
	memset(&s->world, 0, sizeof(s->world));
	memset(s->node, 0, sizeof(s->node));
	s->n_calls = 0;
	s->cut = s->channels_off = 0;
	s->last_writer = 0;
}

static bool
parse_config(struct scene *s, struct words *w, struct chp_shard_config *c)
{
	return option_u32(s, w, "credits", &c->credits) && option_u32(s, w, "window", &c->link_window) &&
	       option_u32(s, w, "keys", &c->keys_max) && option_u32(s, w, "blocks", &c->value_blocks_max) &&
	       option_u32(s, w, "value", &c->value_bytes_max) &&
	       option_u32(s, w, "sessions", &c->sessions_max) &&
	       option_u32(s, w, "session_window", &c->session_window) &&
	       option_u32(s, w, "shards", &c->shards) && option_u32(s, w, "ops", &c->ops) &&
	       option_u32(s, w, "log", &c->log_entries) && option_u32(s, w, "chunk", &c->copy_bytes) &&
	       option_u32(s, w, "batch", &c->batch_items) && option_time(s, w, "age", &c->batch_age_ns) &&
	       option_u32(s, w, "loads", &c->loads_max) && option_u32(s, w, "busy", &c->busy_fill_percent) &&
	       option_time(s, w, "election", &c->election_ns) &&
	       option_time(s, w, "lease", &c->leader_lease_ns) &&
	       option_time(s, w, "idle", &c->session_idle_ns) && option_time(s, w, "down", &c->link_down_ns);
}

static bool
deliver_all(struct scene *s)
{
	for (uint32_t round = 0; round < RUNS_MAX; round++) {
		bool quiet = true;

		for (uint32_t to = 0; to < ENDS_MAX; to++) {
			for (uint32_t from = 0; from < ENDS_MAX; from++)
				if (!arrive(s, from, to, WAY_MAX))
					return false;
			if (s->node[to].hold || !is_alive(s, to) ||
			    (s->node[to].inbox.n == 0 && (to < SIM_NODES_MAX || s->node[to].wake_ns > s->now_ns)))
				continue;
			quiet = false;
			if (!run(s, to))
				return false;
		}
		if (quiet)
			return true;
	}
	return fail(s, "never quiet");
}

/* A process begins: an empty shard, an incarnation and a writer number that nobody had. */
static bool
create_node(struct scene *s, uint32_t n)
{
	struct chp_shard_config c = s->world.config.shard;
	char name[16];
	int err = 0;

	if (++s->last_writer >= SIM_WRITERS_MAX)
		return fail(s, "too many restarts");
	snprintf(name, sizeof(name), "n%u.%u", n, s->last_writer);
	c.self = n;
	c.name = name;
	c.incarnation = 0x1000 * s->last_writer + n;
	s->world.node[n].shard = chp_shard_create(&c, &err);
	if (s->world.node[n].shard == NULL)
		return fail(s, "a shard of this configuration cannot be created: %d", err);
	s->world.node[n].alive = true;
	s->world.node[n].shard_view.epoch = 0;
	s->world.config.kind->born(&s->world, n);
	s->node_of_writer[s->last_writer] = (uint8_t)n;
	s->world.view.incarnation[n] = 0x1000 * s->last_writer + n;
	s->world.view.writer[n] = s->last_writer;
	return true;
}

static bool
create_nodes(struct scene *s, const struct chp_shard_config *config)
{
	s->world.config.shard = *config;
	s->world.config.n_nodes = config->n_nodes;
	s->world.view.epoch = 1;
	s->world.watch = calloc(1, s->world.config.kind->watch_bytes);
	CHP_ASSERT(s->world.watch != NULL);
	s->now_ns = 1000 * MS;
	for (uint32_t n = 0; n < config->n_nodes; n++) {
		if (!create_node(s, n))
			return false;
		if (config->has_host)
			scene_host_start(&s->host[n], &s->world.config.shard, n);
		s->node[n].has_view = true;
		s->world.view.voters |= chp_bit(n);
	}
	for (uint32_t n = 0; n < config->n_nodes; n++)
		if (!run(s, n))
			return false;
	return deliver_all(s); /* the first grants */
}

static bool
on_nodes(struct scene *s, struct words *w)
{
	struct chp_shard_config c = {
		.application = &chp_store,
		.memory = &chp_memory_libc,
		.cluster_hash = 0xc4aa9a12,
		.shards = 1,
		.hash_seed = 7,
		.payload_bytes_max = SIM_PACKET_BYTES,
		.key_bytes_max = CHP_KEY_BYTES_MAX,
		.value_bytes_max = CHP_VALUE_BYTES_MAX,
		.keys_max = 64,
		.value_blocks_max = 128,
		.sessions_max = 8,
		.session_window = 4,
		.session_idle_ns = 3600 * 1000 * MS,
		.credits = 16,
		.link_window = 16,
		.rto_ns_min = MS,
		.rto_ns_max = 16 * MS,
		.link_down_ns = CHP_NEVER,
		.ops = 16,
		.copy_bytes = 65536,
		.election_ns = 10 * MS,
		.batch_items = 16,
		.batch_bytes = 65536,
		.loads_max = 8,
		.busy_fill_percent = 80,
	};
	const char *protocol = option(w, "protocol"), *founding = option(w, "founding");
	const char *hosts = option(w, "hosts"), *durability = option(w, "durability");
	const struct sim_kind *kind = protocol == NULL ? s->world.config.kind : sim_kind_find(protocol);
	uint64_t n;

	if (kind == NULL)
		return fail(s, "there is no protocol %s", protocol);
	c.protocol = kind->protocol;
	c.has_host = hosts != NULL && strcmp(hosts, "yes") == 0;
	c.is_durable = durability != NULL && strcmp(durability, "datastore") == 0;
	if (!parse_config(s, w, &c))
		return false;
	if (w->n != 2 || !parse_u64(s, w->word[1], &n) || n < 1 || n > SIM_NODES_MAX)
		return fail(s, "nodes N [options], N from 1 to %u", SIM_NODES_MAX);
	c.n_nodes = (uint32_t)n;
	if (c.log_entries == 0)
		c.log_entries = chp_pow2_up(4 * c.n_nodes * c.credits);
	c.log_blocks = CHP_RECORD_BLOCKS_MAX * 3 * c.n_nodes * c.credits;
	scene_empty(s);
	s->world.config.kind = kind;
	s->silent = founding != NULL && strcmp(founding, "silent") == 0;
	if (!create_nodes(s, &c))
		return false;
	s->silent = false;
	return true;
}

/* A host's process is another one: what it and its node say is new. */
static void
forget_printed(struct scene *s, uint32_t a, uint32_t b)
{
	s->node[a].printed_seq[b] = s->node[b].printed_seq[a] = 0;
}

static bool
on_crash(struct scene *s, struct words *w)
{
	uint32_t n;

	if (!parse_node(s, w->word[1], &n))
		return false;
	s->world.node[n].alive = false;
	way_drop(&s->node[n].inbox, s->node[n].inbox.n);
	return true;
}

static bool
on_restart(struct scene *s, struct words *w)
{
	uint32_t n;

	if (!parse_node(s, w->word[1], &n))
		return false;
	if (s->world.node[n].alive)
		return fail(s, "node %u runs", n);
	chp_shard_destroy(s->world.node[n].shard);
	s->world.node[n].shard = NULL;
	for (uint32_t peer = 0; peer < ENDS_MAX; peer++) {
		way_drop(&s->way[n][peer], s->way[n][peer].n);
		s->node[peer].printed_seq[n] = 0;
	}
	s->node[n] = (struct scene_node){ .wake_ns = CHP_NEVER };
	return create_node(s, n);
}

static bool
on_lease(struct scene *s, struct words *w)
{
	uint32_t n;

	if (!parse_node(s, w->word[1], &n))
		return false;
	s->node[n].no_lease = strcmp(w->word[2], "off") == 0;
	return true;
}

static bool
on_copied(struct scene *s, struct words *w)
{
	(void)w;
	for (uint32_t n = 0; n < s->world.config.n_nodes; n++)
		if (s->world.node[n].alive)
			fprintf(s->out, "%u: %s\n", n,
				chp_shard_copy_done(s->world.node[n].shard) ? "complete" : "incomplete");
	return true;
}

static bool
on_reset(struct scene *s, struct words *w)
{
	uint32_t a, b;

	if (!parse_node(s, w->word[1], &a) || !parse_node(s, w->word[2], &b))
		return false;
	chp_shard_reset_link(s->world.node[a].shard, b);
	return run_unless_held(s, a);
}

static bool
on_view(struct scene *s, struct words *w)
{
	const char *live = option(w, "live"), *learners = option(w, "learners"), *sources = option(w, "sources");
	struct chp_view *v = &s->world.view;
	const bool cold = strcmp(w->word[0], "cold") == 0;
	uint32_t only = SIM_NODES_MAX;
	uint64_t everybody = 0;

	if (w->n > 1 && !parse_node(s, w->word[1], &only))
		return false;
	if (live == NULL && only == SIM_NODES_MAX)
		return fail(s, "view needs live= or a node");
	if (live != NULL) {
		if (!parse_nodes(s, live, &v->voters) ||
		    !parse_nodes(s, learners == NULL ? "" : learners, &v->learners) ||
		    !parse_nodes(s, sources == NULL ? "" : sources, &v->sources))
			return false;
		if (cold) {
			v->epoch = chp_epoch_of_generation(chp_generation(v->epoch) + 1);
			s->world.generation = chp_generation(v->epoch);
			s->world.config.kind->forget(&s->world);
		} else {
			v->epoch++;
		}
	}
	everybody = chp_view_live(v);
	for (uint32_t n = 0; n < s->world.config.n_nodes; n++) {
		if (only != SIM_NODES_MAX ? only != n : (everybody & chp_bit(n)) == 0)
			continue;
		if (chp_shard_view_epoch(s->world.node[n].shard) >= v->epoch)
			return fail(s, "node %u is in the newest view already", n);
		s->node[n].has_view = true;
		if (!run_unless_held(s, n))
			return false;
	}
	return true;
}

/* The next time at which a node wants to run. */
static uint64_t
next_wake(const struct scene *s)
{
	uint64_t next = CHP_NEVER;

	for (uint32_t n = 0; n < ENDS_MAX; n++)
		if (is_alive(s, n) && !s->node[n].hold)
			next = chp_min_u64(next, s->node[n].wake_ns);
	return next;
}

static bool
on_tick(struct scene *s, struct words *w)
{
	uint64_t ns;

	if (!parse_time(s, w->word[1], &ns))
		return false;
	for (ns += s->now_ns;;) {
		const uint64_t next = next_wake(s);

		if (next > ns)
			break;
		s->now_ns = chp_max_u64(s->now_ns, next);
		for (uint32_t n = 0; n < ENDS_MAX; n++)
			if (is_alive(s, n) && s->node[n].wake_ns <= s->now_ns && !s->node[n].hold && !run(s, n))
				return false;
	}
	s->now_ns = ns;
	return true;
}

static bool
on_pass(struct scene *s, struct words *w)
{
	uint64_t ns, next;

	if (!parse_time(s, w->word[1], &ns) || !deliver_all(s))
		return false;
	for (ns += s->now_ns; (next = next_wake(s)) <= ns;) {
		s->now_ns = chp_max_u64(s->now_ns, next);
		for (uint32_t n = 0; n < ENDS_MAX; n++)
			if (is_alive(s, n) && s->node[n].wake_ns <= s->now_ns && !s->node[n].hold && !run(s, n))
				return false;
		if (!deliver_all(s))
			return false;
	}
	s->now_ns = ns;
	return true;
}

static bool
on_cut(struct scene *s, struct words *w)
{
	uint32_t n;

	if (!parse_node(s, w->word[1], &n))
		return false;
	s->cut |= chp_bit(n);
	return true;
}

static bool
on_mend(struct scene *s, struct words *w)
{
	(void)w;
	s->cut = 0;
	return true;
}

static bool
on_hold(struct scene *s, struct words *w)
{
	uint32_t n;

	if (!parse_node(s, w->word[1], &n))
		return false;
	s->node[n].hold = true;
	return true;
}

static bool
on_run(struct scene *s, struct words *w)
{
	uint32_t n;

	if (!parse_node(s, w->word[1], &n))
		return false;
	s->node[n].hold = false;
	return run(s, n);
}

/* ------------------------------------------------------------------ commands: hosts */

/* The node whose host a command is about, and which of two words it says: 0 or 1. */
static bool
parse_host(struct scene *s, struct words *w, const char *zero, const char *one, uint32_t *n, bool *is_one)
{
	if (!parse_node(s, w->word[1], n))
		return false;
	if (!s->host[*n].exists)
		return fail(s, "node %u has no host", *n);
	*is_one = strcmp(w->word[2], one) == 0;
	return *is_one || strcmp(w->word[2], zero) == 0 || fail(s, "%s NODE %s|%s", w->word[0], zero, one);
}

static bool
on_host(struct scene *s, struct words *w)
{
	struct way *inbox;
	uint32_t n;
	bool starts;

	if (!parse_host(s, w, "crash", "start", &n, &starts))
		return false;
	if (starts == s->host[n].alive)
		return fail(s, "the host of node %u %s", n, starts ? "runs" : "does not run");
	if (starts) {
		forget_printed(s, SIM_NODES_MAX + n, n);
		s->node[SIM_NODES_MAX + n].wake_ns = 0;
		scene_host_start(&s->host[n], &s->world.config.shard, n);
		return run_unless_held(s, SIM_NODES_MAX + n);
	}
	inbox = &s->node[SIM_NODES_MAX + n].inbox;
	scene_host_crash(&s->host[n]);
	way_drop(inbox, inbox->n);
	return true;
}

static bool
on_store(struct scene *s, struct words *w)
{
	bool goes;
	uint32_t n;

	if (w->n == 3) {
		if (!parse_host(s, w, "hold", "go", &n, &goes))
			return false;
		s->host[n].holds = !goes;
		return run_unless_held(s, SIM_NODES_MAX + n);
	}
	for (n = 0; n < s->world.config.n_nodes; n++) {
		if (!s->host[n].exists)
			continue;
		fprintf(s->out, "%u: ", n);
		scene_host_print_store(s->out, &s->host[n], s->world.config.kind, w->n == 2 ? w->word[1] : NULL);
	}
	return true;
}

static bool
on_reads(struct scene *s, struct words *w)
{
	bool work;
	uint32_t n;

	if (!parse_host(s, w, "fail", "work", &n, &work))
		return false;
	s->host[n].fails = !work;
	return true;
}

static bool
on_channel(struct scene *s, struct words *w)
{
	uint32_t n;
	bool on;

	if (!parse_host(s, w, "off", "on", &n, &on))
		return false;
	s->channels_off = on ? s->channels_off & ~chp_bit(n) : s->channels_off | chp_bit(n);
	return true;
}

/* ------------------------------------------------------------------ commands: the network */

static bool
parse_some(struct scene *s, struct words *w, uint32_t *from, uint32_t *to, uint32_t *n)
{
	uint64_t some = WAY_MAX;

	*n = 0;
	if (!parse_pair(s, w->word[1], from, to) || (w->n == 3 && !parse_u64(s, w->word[2], &some)))
		return false;
	*n = chp_min_u32((uint32_t)some, s->way[*from][*to].n);
	if (*n == 0)
		return fail(s, "no packet on its way %s", w->word[1]);
	return true;
}

static bool
on_arrive(struct scene *s, struct words *w)
{
	uint32_t from, to, n;

	return parse_some(s, w, &from, &to, &n) && arrive(s, from, to, n);
}

static bool
on_deliver(struct scene *s, struct words *w)
{
	uint32_t from, to, n;

	if (w->n == 1)
		return deliver_all(s);
	return parse_some(s, w, &from, &to, &n) && arrive(s, from, to, n) && run_unless_held(s, to);
}

static bool
on_drop(struct scene *s, struct words *w)
{
	uint32_t from, to, n;

	if (!parse_some(s, w, &from, &to, &n))
		return false;
	for (uint32_t i = 0; i < n; i++)
		print_packet(s, from, to, s->way[from][to].packet[i], "lost: ");
	way_drop(&s->way[from][to], n);
	return true;
}

static bool
on_duplicate(struct scene *s, struct words *w)
{
	uint32_t from, to, n;

	if (!parse_some(s, w, &from, &to, &n))
		return false;
	for (uint32_t i = 0; i < n; i++) {
		const struct scene_packet *p = s->way[from][to].packet[i];

		if (!way_add(s, &s->way[from][to], p->data, p->len))
			return false;
	}
	return true;
}

static bool
on_reverse(struct scene *s, struct words *w)
{
	uint32_t from, to, n;

	if (!parse_some(s, w, &from, &to, &n))
		return false;
	for (uint32_t i = 0; i < n / 2; i++) {
		struct scene_packet **p = s->way[from][to].packet, *first = p[i];

		p[i] = p[n - 1 - i];
		p[n - 1 - i] = first;
	}
	return true;
}

/* ------------------------------------------------------------------ commands: clients */

/* What an operation's word is, and what words it takes after the node. */
static const struct operation {
	const char *word;
	uint8_t opcode;
	bool key, version, number, value, relaxed, rule;
} operations[] = {
	{ "get", CHP_OPCODE_GET, .key = true },
	{ "relaxed", CHP_OPCODE_GET, .key = true, .relaxed = true },
	{ "quorum", CHP_OPCODE_QUORUM, .key = false, .rule = true },
	{ "put", CHP_OPCODE_PUT, .key = true, .value = true },
	{ "delete", CHP_OPCODE_DELETE, .key = true },
	{ "cas", CHP_OPCODE_CAS, .key = true, .version = true, .value = true },
	{ "add", CHP_OPCODE_ADD, .key = true, .value = true },
	{ "replace", CHP_OPCODE_REPLACE, .key = true, .value = true },
	{ "append", CHP_OPCODE_APPEND, .key = true, .value = true },
	{ "prepend", CHP_OPCODE_PREPEND, .key = true, .value = true },
	{ "incr", CHP_OPCODE_INCR, .key = true, .number = true },
	{ "decr", CHP_OPCODE_DECR, .key = true, .number = true },
	{ "open", CHP_OPCODE_SESSION_OPEN, .key = false },
	{ "close", CHP_OPCODE_SESSION_CLOSE, .key = false },
};

static bool
parse_session(struct scene *s, struct words *w, struct chp_op *op)
{
	const char *session = option(w, "session"), *request = option(w, "req"), *lowest = option(w, "lowest"),
		   *epoch = option(w, "epoch");
	uint64_t writer, id, known = s->world.view.epoch;

	op->request = s->n_calls;
	if (epoch != NULL && !parse_u64(s, epoch, &known))
		return false;
	op->epoch = (uint32_t)known;
	if (session == NULL)
		return request == NULL && lowest == NULL ? true : fail(s, "req= and lowest= need session=");
	if (!parse_dotted(s, session, &writer, &id) || !parse_u64(s, request == NULL ? "1" : request, &op->request))
		return false;
	if (writer >= SIM_WRITERS_MAX)
		return fail(s, "no writer %" PRIu64, writer);
	op->session = writer << CHP_SESSION_WRITER_SHIFT | id;
	if (s->world.config.kind->by_writer)
		op->session |= (uint64_t)s->node_of_writer[writer] << CHP_SESSION_NODE_SHIFT;
	return parse_u64(s, lowest == NULL ? "1" : lowest, &op->lowest);
}

/* "2.1", or "2" where versions do not name writers. */
static bool
parse_version(struct scene *s, const char *text, uint64_t *version)
{
	uint64_t counter, writer;

	if (!s->world.config.kind->by_writer)
		return parse_u64(s, text, version);
	if (!parse_dotted(s, text, &counter, &writer))
		return false;
	*version = chp_version_make(counter, (uint16_t)writer);
	return true;
}

static bool
parse_operation(struct scene *s, const struct operation *o, struct words *w, struct call *c)
{
	uint32_t at = 2;

	c->op = (struct chp_op){ .opcode = o->opcode, .is_relaxed = o->relaxed };
	memcpy(c->op.origin.address, &s->n_calls, sizeof(s->n_calls));
	if (!parse_session(s, w, &c->op))
		return false;
	if (w->n != 2u + o->key + o->version + o->number + o->value + o->rule)
		return fail(s, "%s does not take %u words", o->word, w->n - 1);
	if (o->key && !expand(s, w->word[at++], c->key, sizeof(c->key), &c->op.key.len))
		return false;
	if (o->version && !parse_version(s, w->word[at++], &c->op.arg))
		return false;
	if (o->rule)
		c->op.arg = strcmp(w->word[at], "all") == 0 ? CHP_QUORUM_ALL : CHP_QUORUM_MAJORITY;
	if (o->number && !parse_u64(s, w->word[at++], &c->op.arg))
		return false;
	if (o->value && !expand(s, w->word[at], c->value, sizeof(c->value), &c->op.value_len))
		return false;
	c->op.key.bytes = (const uint8_t *)c->key;
	c->op.value = (const uint8_t *)c->value;
	return true;
}

static bool
submit(struct scene *s, const struct operation *o, struct words *w)
{
	struct call *c = &s->call[s->n_calls];
	struct scene_node *node;
	uint32_t n;

	if (w->n < 2 || !parse_node(s, w->word[1], &n))
		return fail(s, "%s needs a node", o->word);
	node = &s->node[n];
	if (s->n_calls == CALLS_MAX || node->n_waiting == CHP_BATCH_MAX)
		return fail(s, "too many operations");
	if (!parse_operation(s, o, w, c))
		return false;
	node->waiting[node->n_waiting++] = s->n_calls++;
	return run_unless_held(s, n);
}

/* ------------------------------------------------------------------ commands: looking */

static bool
on_state(struct scene *s, struct words *w)
{
	char text[256];

	for (uint32_t n = 0; n < s->world.config.n_nodes; n++) {
		struct chp_text t = chp_text_of(text, sizeof(text));

		if (!s->world.node[n].alive)
			continue;
		chp_shard_dump(s->world.node[n].shard, w->n > 1 ? w->word[1] : NULL, &t);
		fprintf(s->out, "%u: %s\n", n, text);
	}
	return true;
}

static bool
on_status(struct scene *s, struct words *w)
{
	(void)w;
	for (uint32_t n = 0; n < s->world.config.n_nodes; n++) {
		struct chp_protocol_status p;

		if (!s->world.node[n].alive)
			continue;
		chp_shard_status(s->world.node[n].shard, &p);
		fprintf(s->out, "%u: %s", n, p.role);
		if (p.leader != CHP_NODES_MAX)
			fprintf(s->out, " of node %u", p.leader);
		fprintf(s->out, ", %" PRIu64 " proposed, %" PRIu64 " committed, %" PRIu64 " applied, quorum %s%s%s\n",
			p.proposed, p.committed, p.applied, p.quorum, p.waiting[0] == '\0' ? "" : "; ", p.waiting);
	}
	return true;
}

static bool
on_digest(struct scene *s, struct words *w)
{
	uint64_t live = chp_view_live(&s->world.view);
	uint32_t first = chp_first_bit(live);
	bool equal = true;

	(void)w;
	for (live &= live - 1; live != 0; live &= live - 1) {
		uint32_t n = chp_first_bit(live);

		if (chp_shard_digest(s->world.node[n].shard) == chp_shard_digest(s->world.node[first].shard))
			continue;
		fprintf(s->out, "node %u differs from node %u\n", n, first);
		equal = false;
	}
	if (equal)
		fputs("all equal\n", s->out);
	return true;
}

/* A counter by name: the shard's, the protocol's, the host's, the cache's, or the sum over a node's links. */
static bool
counter_of(const struct scene *s, uint32_t n, const char *name, uint64_t *sum)
{
	static struct chp_shard_stats stats;
	bool found = false;

	*sum = 0;
	chp_shard_stats(s->world.node[n].shard, &stats);
#define FIND(field, help)                          \
	if (strcmp(name, #field) == 0) {           \
		*sum = stats.FIND_IN.field;        \
		found = true;                      \
	}
#define FIND_IN shard
	CHP_SHARD_COUNTERS(FIND)
#undef FIND_IN
#define FIND_IN protocol
	CHP_PROTOCOL_COUNTERS(FIND)
#undef FIND_IN
#define FIND_IN host
	CHP_HOST_COUNTERS(FIND)
#undef FIND_IN
#define FIND_IN cache
	FIND(evictions, "")
#undef FIND_IN
#define FIND_IN zab
	if (s->world.config.kind == &sim_zab) {
		CHP_ZAB_COUNTERS(FIND)
	}
#undef FIND_IN
#undef FIND
	for (uint32_t p = 0; p < s->world.config.n_nodes; p++) {
#define ADD(field, help)                           \
	if (strcmp(name, #field) == 0) {           \
		*sum += stats.link[p].field;       \
		found = true;                      \
	}
		CHP_LINK_COUNTERS(ADD)
#undef ADD
	}
	return found;
}

static bool
on_counters(struct scene *s, struct words *w)
{
	fprintf(s->out, "%s:", w->word[1]);
	for (uint32_t n = 0; n < s->world.config.n_nodes; n++) {
		uint64_t sum;

		if (!counter_of(s, n, w->word[1], &sum))
			return fail(s, "there is no counter %s", w->word[1]);
		fprintf(s->out, " %" PRIu64, sum);
	}
	fputc('\n', s->out);
	return true;
}

static bool
on_trace(struct scene *s, struct words *w)
{
	const bool on = strcmp(w->word[2], "on") == 0;

	if (strcmp(w->word[1], "links") == 0)
		s->trace_links = on;
	else if (strcmp(w->word[1], "chatter") == 0)
		s->chatter = on;
	else
		return fail(s, "trace links|chatter on|off");
	return true;
}

/* ------------------------------------------------------------------ files */

static const struct command {
	const char *word;
	uint32_t words_min, words_max;
	bool (*run)(struct scene *s, struct words *w);
} commands[] = {
	{ "nodes", 2, WORDS_MAX, on_nodes },
	{ "hold", 2, 2, on_hold },
	{ "run", 2, 2, on_run },
	{ "arrive", 2, 3, on_arrive },
	{ "deliver", 1, 3, on_deliver },
	{ "drop", 2, 3, on_drop },
	{ "duplicate", 2, 3, on_duplicate },
	{ "reverse", 2, 3, on_reverse },
	{ "tick", 2, 2, on_tick },
	{ "pass", 2, 2, on_pass },
	{ "cut", 2, 2, on_cut },
	{ "mend", 1, 1, on_mend },
	{ "status", 1, 1, on_status },
	{ "view", 2, 5, on_view },
	{ "cold", 3, 4, on_view },
	{ "crash", 2, 2, on_crash },
	{ "restart", 2, 2, on_restart },
	{ "host", 3, 3, on_host },
	{ "store", 1, 3, on_store },
	{ "reads", 3, 3, on_reads },
	{ "channel", 3, 3, on_channel },
	{ "lease", 3, 3, on_lease },
	{ "copied", 1, 1, on_copied },
	{ "reset", 3, 3, on_reset },
	{ "state", 1, 2, on_state },
	{ "digest", 1, 1, on_digest },
	{ "counters", 2, 2, on_counters },
	{ "trace", 3, 3, on_trace },
};

static bool
dispatch(struct scene *s, struct words *w)
{
	for (uint32_t i = 0; i < CHP_ARRAY_LEN(operations); i++)
		if (strcmp(w->word[0], operations[i].word) == 0)
			return submit(s, &operations[i], w);
	for (uint32_t i = 0; i < CHP_ARRAY_LEN(commands); i++) {
		const struct command *c = &commands[i];

		if (strcmp(w->word[0], c->word) != 0)
			continue;
		if (w->n < c->words_min || w->n > c->words_max)
			return fail(s, "%s does not take %u words", c->word, w->n - 1);
		return c->run(s, w);
	}
	return fail(s, "there is no command %s", w->word[0]);
}

static bool
run_command(struct scene *s, const char *line)
{
	char text[512], *rest = NULL;
	struct words w = { .n = 0 };

	if (strlen(line) >= sizeof(text))
		return fail(s, "line too long");
	memcpy(text, line, strlen(line) + 1);
	for (char *word = strtok_r(text, " \t\r\n", &rest); word != NULL; word = strtok_r(NULL, " \t\r\n", &rest)) {
		if (w.n == WORDS_MAX)
			return fail(s, "too many words");
		w.word[w.n++] = word;
	}
	if (strcmp(w.word[0], "nodes") != 0 && s->world.config.n_nodes == 0)
		return fail(s, "nodes must come first");
	if (!dispatch(s, &w))
		return false;
	sim_check_agreement(&s->world);
	return s->world.failure[0] == '\0' ? true : fail(s, "%s", s->world.failure);
}

/* A file in progress: the old text goes in, the text as it would be rewritten comes out. */
struct script {
	const char *name;
	FILE *in;
	FILE *new_text;
	char *line;
	size_t size;
	uint32_t number; /* of the line */
	bool more, rewrite;
};

static bool
next_line(struct script *f)
{
	f->more = getline(&f->line, &f->size, f->in) >= 0;
	f->number += f->more;
	return f->more;
}

static bool
is_blank(const char *line)
{
	return line[strspn(line, " \t\r\n")] == '\0';
}

static void
show_difference(const struct script *f, uint32_t number, const char *expected, const char *got)
{
	size_t same = 0;

	while (expected[same] == got[same] && expected[same] != '\0')
		same++;
	while (same > 0 && expected[same - 1] != '\n')
		same--;
	fprintf(stderr, "%s:%u: FAILED, from here on differs what the commands give:\n", f->name, number);
	fprintf(stderr, "--- expected\n%s--- got\n%s", expected + same, got + same);
}

/* One block: commands were the lines up to here. Runs them as they come. */
static bool
run_block(struct scene *s, struct script *f)
{
	char *got = NULL, *expected = NULL;
	size_t got_len = 0, expected_len = 0;
	FILE *old = open_memstream(&expected, &expected_len);
	const uint32_t number = f->number;
	bool ok = true;

	s->out = open_memstream(&got, &got_len);
	CHP_ASSERT(s->out != NULL && old != NULL);
	for (; ok && f->more && strcmp(f->line, "----\n") != 0; next_line(f)) {
		fputs(f->line, f->new_text);
		if (f->line[0] != '#')
			ok = is_blank(f->line) ? fail(s, "commands end with a line ----") :
						 run_command(s, f->line);
		if (!ok)
			fprintf(stderr, "%s:%u: %s\n", f->name, f->number, s->error);
	}
	fclose(s->out);
	while (ok && next_line(f) && !is_blank(f->line))
		fputs(f->line, old);
	fclose(old);
	fprintf(f->new_text, "----\n%s", got);
	if (ok && !f->rewrite && strcmp(got, expected) != 0) {
		show_difference(f, number, expected, got);
		ok = false;
	}
	free(got);
	free(expected);
	return ok;
}

static bool
run_script(struct scene *s, struct script *f)
{
	bool ok = true;

	next_line(f);
	while (f->more && s->error[0] == '\0') {
		if (f->line[0] == '#' || is_blank(f->line)) {
			fputs(f->line, f->new_text);
			next_line(f);
			continue;
		}
		ok = run_block(s, f) && ok;
	}
	return ok;
}

static bool
replace_file(const char *name, const char *text, size_t len)
{
	FILE *out = fopen(name, "w");
	bool ok = out != NULL && fwrite(text, 1, len, out) == len;

	if (out != NULL && fclose(out) != 0)
		ok = false;
	if (!ok)
		fprintf(stderr, "%s: %s\n", name, strerror(errno));
	return ok;
}

static bool
run_file(struct scene *s, const char *name, bool rewrite)
{
	char *text = NULL;
	size_t len = 0;
	struct script f = { .name = name,
			    .in = fopen(name, "r"),
			    .new_text = open_memstream(&text, &len),
			    .rewrite = rewrite };
	bool ok;

	CHP_ASSERT(f.new_text != NULL);
	if (f.in == NULL) {
		fprintf(stderr, "%s: %s\n", name, strerror(errno));
		fclose(f.new_text);
		free(text);
		return false;
	}
	s->error[0] = '\0';
	s->trace_links = s->chatter = false;
	ok = run_script(s, &f);
	scene_empty(s);
	fclose(f.in);
	fclose(f.new_text);
	if (rewrite && ok)
		ok = replace_file(name, text, len);
	free(f.line);
	free(text);
	return ok;
}

bool
sim_scenarios(const struct sim_kind *kind, char **files, int n, bool rewrite)
{
	static struct scene s;
	int failed = 0;

	for (int i = 0; i < n; i++) {
		bool ok;

		printf("scenario %s: ", files[i]);
		fflush(stdout); /* before an assertion can end it */
		s.world.config.kind = kind;
		ok = run_file(&s, files[i], rewrite);
		failed += !ok;
		puts(ok ? (rewrite ? "written" : "ok") : "FAILED");
	}
	printf("scenarios: %d ok, %d failed\n", n - failed, failed);
	return n > 0 && failed == 0;
}
