/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The command cluster-health: one look at all members, one word, one exit code.
 */
#include "gather.h"

#include <string.h>

enum health {
	HEALTHY = 0,
	DEGRADED,
	DOWN,
};

static const char *const health_name[] = { "healthy", "degraded", "down" };

struct verdict {
	enum health health;
	uint32_t answered, serving, voters;
};

/* How many voters the newest view has: as its member says, or as many as say so themselves. */
static uint32_t
voters_of(const struct gather *g)
{
	const json_t *list = g->newest != NULL ? json_object_get(g->newest->membership, "members")
					       : NULL;
	uint32_t listed = 0, own = 0;
	const json_t *m;
	size_t i;

	json_array_foreach (list, i, m) {
		const char *role = json_string_value(json_object_get(m, "role"));

		listed += role != NULL && strcmp(role, "voter") == 0;
	}
	for (uint32_t n = 0; n < g->n; n++)
		own += g->node[n].is_voter && g->node[n].epoch == g->newest->epoch;
	return listed > own ? listed : own;
}

static struct verdict
judge(const struct gather *g)
{
	struct verdict v = { .voters = voters_of(g) };

	for (uint32_t i = 0; i < g->n; i++) {
		const struct gather_node *n = &g->node[i];

		v.answered += n->json != NULL;
		v.serving += n->serves && n->epoch == g->newest->epoch;
	}
	if (v.serving == g->configured)
		v.health = HEALTHY;
	else if (v.serving > v.voters / 2)
		v.health = DEGRADED;
	else
		v.health = DOWN;
	return v;
}

static void
print_shards(const struct gather *g)
{
	struct gather_shard s;

	for (uint32_t shard = 0; gather_has_leaders(g) && shard < g->shards; shard++) {
		if (!gather_shard(g, shard, &s))
			continue;
		if (s.leader < 0)
			printf("  shard %u: no leader", shard);
		else
			printf("  shard %u: leader %s (node %d)", shard, gather_name(g, s.leader), s.leader);
		printf(", epoch %llu, %llu committed, quorum %s\n", (unsigned long long)s.epoch,
		       (unsigned long long)s.committed, s.quorum);
	}
}

static json_t *
shards_json(const struct gather *g)
{
	json_t *list = json_array();
	struct gather_shard s;

	for (uint32_t shard = 0; shard < g->shards; shard++) {
		if (!gather_shard(g, shard, &s))
			continue;
		json_array_append_new(list, json_pack("{si si sI sI ss}", "shard", (int)shard, "leader",
						      s.leader, "epoch", (json_int_t)s.epoch, "committed",
						      (json_int_t)s.committed, "quorum", s.quorum));
	}
	return list;
}

static void
print_text(const struct gather *g, const struct verdict *v)
{
	char why[2 * GATHER_TEXT_BYTES];

	printf("%s: %u of %u members serve", health_name[v->health], v->serving, g->configured);
	if (g->newest != NULL && g->newest->epoch > 0)
		printf(", view %llu with %u voter%s", (unsigned long long)g->newest->epoch,
		       v->voters, v->voters == 1 ? "" : "s");
	fputc('\n', stdout);
	for (uint32_t i = 0; i < g->n; i++) {
		const struct gather_node *n = &g->node[i];

		gather_why(g, n, why, sizeof(why));
		if (why[0] != '\0')
			printf("  %s (node %u, %s): %s\n", n->member.name, n->member.id,
			       n->member.address, why);
	}
	print_shards(g);
}

static void
print_json(const struct gather *g, const struct verdict *v)
{
	json_t *members = json_array();
	char why[2 * GATHER_TEXT_BYTES];

	for (uint32_t i = 0; i < g->n; i++) {
		const struct gather_node *n = &g->node[i];

		gather_why(g, n, why, sizeof(why));
		json_array_append_new(
			members,
			json_pack("{si ss ss sb sb ss ss sI sI ss}", "node", (int)n->member.id,
				  "name", n->member.name, "address", n->member.address, "answered",
				  n->json != NULL, "serves", n->serves && why[0] == '\0', "state",
				  n->state, "role", n->role, "epoch", (json_int_t)n->epoch,
				  "lease_ms", (json_int_t)n->lease_ms, "why", why));
	}
	ctl_json_print(json_pack("{ss sI si si si si so so}", "health", health_name[v->health], "epoch",
				 (json_int_t)(g->newest != NULL ? g->newest->epoch : 0),
				 "configured", (int)g->configured, "answered", (int)v->answered,
				 "voters", (int)v->voters, "serving", (int)v->serving, "members",
				 members, "shards", shards_json(g)));
}

int
ctl_health(struct ctl *ctl, int argc, char **argv)
{
	static struct gather g;
	int o = ctl_getopt(ctl, argc, argv, NULL), code;
	struct verdict v;

	if (o != -1)
		return o == 'h' ? CTL_OK : CTL_USAGE;
	if (argc > optind)
		return ctl_usage(ctl, "unexpected argument \"%s\"", argv[optind]);
	if (ctl->node != CHAAPAR_ANY_NODE)
		return ctl_usage(ctl, "all members are asked: --node makes no sense here");
	code = ctl_connect_within(ctl, CTL_TIMEOUT_MS_OBSERVE);
	if (code != CTL_OK) {
		if (code == CTL_NO_ANSWER && ctl->json)
			print_json(&g, &(struct verdict){ .health = DOWN });
		return code;
	}
	gather(ctl->c, CHAAPAR_ANY_NODE, &g);
	v = judge(&g);
	if (ctl->json)
		print_json(&g, &v);
	else
		print_text(&g, &v);
	gather_free(&g);
	return v.health == HEALTHY ? CTL_OK : v.health == DEGRADED ? CTL_ERROR : CTL_NO_ANSWER;
}
