/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What every member says of itself, asked of all at the same time: a dead one must not make the others
 * wait. What they say is data of others: shown as far as it is there, and never trusted for a length.
 */
#include "gather.h"

#include <stdlib.h>
#include <string.h>

#define PARTS_MAX 1024u
#define RESTARTS_MAX 8u

struct fetch {
	struct gather_node *node;
	char *text;
	size_t len;
	uint64_t version;
	uint32_t part, restarts;
};

static void fetched(struct chaapar *c, void *arg, const struct chaapar_result *r);

static void
fail(struct fetch *f, enum chaapar_status status)
{
	f->node->status = status;
	free(f->text);
	f->text = NULL;
}

static void
ask(struct chaapar *c, struct fetch *f)
{
	if (chaapar_node_part(c, f->node->member.id, 0, f->part, fetched, f) != 0)
		fail(f, CHAAPAR_NO_MEMORY);
}

static void
fetched(struct chaapar *c, void *arg, const struct chaapar_result *r)
{
	struct fetch *f = arg;
	char *more;

	if (r->status != CHAAPAR_OK) {
		fail(f, r->status);
		return;
	}
	if (f->part > 0 && r->version != f->version && ++f->restarts <= RESTARTS_MAX) {
		f->part = 0;
		f->len = 0;
		ask(c, f);
		return;
	}
	if (r->number == 0 || r->number > PARTS_MAX || f->restarts > RESTARTS_MAX) {
		fail(f, CHAAPAR_BAD_REQUEST);
		return;
	}
	more = realloc(f->text, f->len + r->value_len + 1);
	if (more == NULL) {
		fail(f, CHAAPAR_NO_MEMORY);
		return;
	}
	f->text = more;
	memcpy(f->text + f->len, r->value, r->value_len);
	f->len += r->value_len;
	f->version = r->version;
	if (++f->part < r->number)
		ask(c, f);
	else
		f->node->status = CHAAPAR_OK;
}

/* ---- reading ---- */

void
gather_text(const json_t *object, const char *key, char *to, size_t size)
{
	const char *s = json_string_value(json_object_get(object, key));

	snprintf(to, size, "%s", s != NULL ? s : "");
	for (; *to != '\0'; to++) { /* it goes to a terminal */
		if ((unsigned char)*to < 0x20 || *to == 0x7f)
			*to = '?';
	}
}

uint64_t
gather_number(const json_t *object, const char *key)
{
	const json_t *v = json_object_get(object, key);

	return json_is_integer(v) && json_integer_value(v) > 0 ? (uint64_t)json_integer_value(v)
							       : 0;
}

static void
read_node(struct gather_node *n)
{
	const json_t *m = json_object_get(n->json, "membership");

	n->membership = m;
	n->instances = json_object_get(n->json, "instances");
	gather_text(json_object_get(m, "state") != NULL ? m : n->json, "state", n->state,
		    sizeof(n->state));
	gather_text(json_object_get(m, "waiting") != NULL ? m : n->json,
		    json_object_get(m, "waiting") != NULL ? "waiting" : "text", n->waiting,
		    sizeof(n->waiting));
	gather_text(m, "role", n->role, sizeof(n->role));
	n->epoch = gather_number(json_object_get(m, "epoch") != NULL ? m : n->json, "epoch");
	n->lease_ms = gather_number(m, "lease_ms");
	n->lives = gather_number(m, "lives");
	n->is_voter = strcmp(n->state, "member") == 0 && strcmp(n->role, "voter") == 0;
	n->is_learner = strcmp(n->state, "member") == 0 && strcmp(n->role, "learner") == 0;
	n->serves = n->is_voter && json_is_true(json_object_get(m, "serves"));
}

void
gather(struct chaapar *c, int only, struct gather *g)
{
	static struct fetch fetch[CHAAPAR_NODES_MAX];
	struct chaapar_info info = *chaapar_info(c);

	memset(g, 0, sizeof(*g));
	memset(fetch, 0, sizeof(fetch));
	g->configured = info.n_members;
	g->shards = info.shards;
	snprintf(g->cluster, sizeof(g->cluster), "%s", info.name);
	for (uint32_t i = 0; i < info.n_members; i++) {
		if (only != CHAAPAR_ANY_NODE && info.member[i].id != (uint32_t)only)
			continue;
		g->node[g->n].member = info.member[i];
		fetch[g->n].node = &g->node[g->n];
		ask(c, &fetch[g->n++]);
	}
	while (chaapar_in_flight(c) > 0)
		(void)chaapar_poll(c, -1);
	for (uint32_t i = 0; i < g->n; i++) {
		struct gather_node *n = &g->node[i];

		if (n->status == CHAAPAR_OK)
			n->json = json_loadb(fetch[i].text, fetch[i].len, 0, NULL);
		free(fetch[i].text);
		if (n->status == CHAAPAR_OK && n->json == NULL)
			n->status = CHAAPAR_BAD_REQUEST;
		if (n->json == NULL)
			continue;
		read_node(n);
		if (g->newest == NULL || n->epoch > g->newest->epoch ||
		    (n->epoch == g->newest->epoch && n->serves && !g->newest->serves))
			g->newest = n;
	}
}

void
gather_free(struct gather *g)
{
	for (uint32_t i = 0; i < g->n; i++)
		json_decref(g->node[i].json);
	memset(g, 0, sizeof(*g));
}

const json_t *
gather_member(const struct gather *g, uint32_t id)
{
	const json_t *list = g->newest != NULL ? json_object_get(g->newest->membership, "members")
					       : NULL;
	const json_t *m;
	size_t i;

	json_array_foreach (list, i, m) {
		if (json_is_integer(json_object_get(m, "node")) &&
		    json_integer_value(json_object_get(m, "node")) == (json_int_t)id)
			return m;
	}
	return NULL;
}

/* The state and its reason, which may begin with the state. */
static void
state_text(const struct gather_node *n, char *to, size_t size)
{
	size_t len = strlen(n->state);

	if (len > 0 && strncmp(n->waiting, n->state, len) == 0 && n->waiting[len] == ':')
		snprintf(to, size, "%s", n->waiting);
	else
		snprintf(to, size, "%s%s%s", len > 0 ? n->state : "in no view", n->waiting[0] != '\0' ? ": " : "",
			 n->waiting);
}

/* A leader, while it leads, is named by who follows it; the newest epoch knows best. */
static bool
knows_better(const struct gather_instance *i, const struct gather_shard *s, bool none)
{
	return none || i->epoch > s->epoch || (i->epoch == s->epoch && i->is_leader && !s->is_sure);
}

static void
read_instance(const json_t *v, struct gather_instance *out)
{
	const json_t *leader = json_object_get(v, "leader");
	json_int_t id = json_is_integer(leader) ? json_integer_value(leader) : -1;

	gather_text(v, "role", out->role, sizeof(out->role));
	gather_text(v, "quorum", out->quorum, sizeof(out->quorum));
	gather_text(v, "waiting", out->waiting, sizeof(out->waiting));
	out->epoch = gather_number(v, "epoch");
	out->committed = gather_number(v, "committed");
	out->applied = gather_number(v, "applied");
	out->leader = id >= 0 && id < CHAAPAR_NODES_MAX ? (int)id : -1;
	out->is_leader = strcmp(out->role, "leader") == 0;
}

bool
gather_instance(const struct gather_node *n, uint32_t shard, struct gather_instance *out)
{
	const json_t *v = json_array_get(n->instances, shard);

	memset(out, 0, sizeof(*out));
	if (!json_is_object(v))
		return false;
	read_instance(v, out);
	return true;
}

bool
gather_shard(const struct gather *g, uint32_t shard, struct gather_shard *out)
{
	bool none = true;

	memset(out, 0, sizeof(*out));
	out->leader = -1;
	for (uint32_t n = 0; n < g->n; n++) {
		struct gather_instance i;

		if (!gather_instance(&g->node[n], shard, &i))
			continue;
		if (i.committed > out->committed)
			out->committed = i.committed;
		if (!knows_better(&i, out, none))
			continue;
		none = false;
		out->epoch = i.epoch;
		out->leader = i.leader;
		out->is_sure = i.is_leader;
		snprintf(out->quorum, sizeof(out->quorum), "%s", i.quorum);
	}
	return !none;
}

bool
gather_has_leaders(const struct gather *g)
{
	struct gather_instance i;

	for (uint32_t n = 0; n < g->n; n++) {
		if (gather_instance(&g->node[n], 0, &i) && i.quorum[0] != '\0' && strcmp(i.quorum, "live") != 0)
			return true;
	}
	return false;
}

const char *
gather_name(const struct gather *g, int id)
{
	for (uint32_t n = 0; n < g->n; n++) {
		if (id >= 0 && g->node[n].member.id == (uint32_t)id)
			return g->node[n].member.name;
	}
	return id >= 0 ? "?" : "-";
}

void
gather_why(const struct gather *g, const struct gather_node *n, char *to, size_t size)
{
	const json_t *m = gather_member(g, n->member.id);
	char text[GATHER_TEXT_BYTES];

	gather_text(m, "text", text, sizeof(text));
	if (n->json == NULL)
		snprintf(to, size, "%s%s%s", n->status == CHAAPAR_TIMEOUT ||
						     n->status == CHAAPAR_UNSENT
					     ? "no answer"
					     : chaapar_strerror((int)n->status),
			 text[0] != '\0' ? "; the others: " : "", text);
	else if (strcmp(n->state, "member") != 0)
		state_text(n, to, size);
	else if (g->newest != NULL && n->epoch != g->newest->epoch)
		snprintf(to, size, "in view %llu, others in %llu", (unsigned long long)n->epoch,
			 (unsigned long long)g->newest->epoch);
	else if (n->is_learner)
		snprintf(to, size, "learner: copies the state");
	else if (!n->is_voter)
		snprintf(to, size, "no voter");
	else if (!n->serves)
		snprintf(to, size, "%s", n->waiting[0] != '\0' ? n->waiting : "does not serve");
	else
		to[0] = '\0';
}
