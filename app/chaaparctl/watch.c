/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * status --watch: the members, the view and its history, again and again. A terminal is drawn over;
 * anything else gets a block each time.
 */
#include "watch.h"

#include "core/lease.h"
#include "gather.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BAR 24u
#define HISTORY_MAX 8u
#define WHY_BYTES (2 * GATHER_TEXT_BYTES)

/* The rest of the line is cleared: what stood there before may have been longer. */
static void
end_line(bool redraw)
{
	fputs(redraw ? "\033[K\n" : "\n", stdout);
}

/* ---- pieces of text ---- */

static void
ago_text(uint64_t ms, char *to, size_t size)
{
	if (ms < 60 * 1000)
		snprintf(to, size, "%.1f s", (double)ms / 1e3);
	else if (ms < 3600 * 1000)
		snprintf(to, size, "%" PRIu64 " min", ms / (60 * 1000));
	else
		snprintf(to, size, "%" PRIu64 " h %" PRIu64 " min", ms / (3600 * 1000),
			 ms / (60 * 1000) % 60);
}

/* A list of node ids as names. */
static void
print_nodes(const struct gather *g, const json_t *list)
{
	const json_t *v;
	size_t i;

	if (json_array_size(list) == 0)
		fputs(" -", stdout);
	json_array_foreach (list, i, v) {
		const char *name = NULL;

		for (uint32_t n = 0; n < g->n; n++) {
			if (json_is_integer(v) &&
			    json_integer_value(v) == (json_int_t)g->node[n].member.id)
				name = g->node[n].member.name;
		}
		if (name != NULL)
			printf(" %s", name);
		else
			printf(" %" JSON_INTEGER_FORMAT, json_integer_value(v));
	}
}

/* How far a copy is: a bar, the share, what was copied, from whom. */
static void
print_copy(const json_t *copy)
{
	uint64_t ppm = gather_number(copy, "progress_ppm"), restarts = gather_number(copy, "restarts");
	const json_t *from = json_object_get(copy, "source");
	json_int_t source = json_is_integer(from) ? json_integer_value(from) : -1;
	uint32_t full;

	if (ppm > 1000000)
		ppm = 1000000;
	full = (uint32_t)(ppm * BAR / 1000000);
	fputs("  [", stdout);
	for (uint32_t i = 0; i < BAR; i++)
		fputc(i < full ? '#' : '.', stdout);
	printf("] %5.1f %%  %" PRIu64 " items, %.1f MB", (double)ppm / 1e4,
	       gather_number(copy, "items"), (double)gather_number(copy, "bytes") / 1e6);
	if (source >= 0)
		printf(" from node %" JSON_INTEGER_FORMAT, source);
	if (restarts > 0)
		printf(", begun again %" PRIu64 " time%s", restarts, restarts == 1 ? "" : "s");
}

/* ---- one member, a line ---- */

static void
print_node(const struct gather *g, const struct gather_node *n, bool redraw)
{
	const json_t *known = gather_member(g, n->member.id), *copy;
	const json_t *suspected = json_object_get(n->membership, "suspected");
	char role[16], lease[24] = "-", epoch[24] = "-", lives[24] = "-", why[WHY_BYTES];

	/* What the others say where it says nothing itself. */
	gather_text(n->role[0] != '\0' ? n->membership : known, "role", role, sizeof(role));
	/* A member alone is its own majority: its lease has no end. */
	if (n->json != NULL && n->lease_ms > CHP_LEASE_NS_MAX / 1000000)
		snprintf(lease, sizeof(lease), "for ever");
	else if (n->json != NULL && n->lease_ms > 0)
		snprintf(lease, sizeof(lease), "%" PRIu64 " ms", n->lease_ms);
	if (n->epoch > 0)
		snprintf(epoch, sizeof(epoch), "%" PRIu64, n->epoch);
	if (n->lives > 0)
		snprintf(lives, sizeof(lives), "%" PRIu64, n->lives);
	printf("%-4u %-12s %-15s %-8s %6s %10s %5s", n->member.id, n->member.name,
	       n->member.address, role[0] != '\0' ? role : "?", epoch, lease, lives);
	copy = json_object_get(n->membership, "copy");
	gather_why(g, n, why, sizeof(why));
	if (n->is_learner && json_is_object(copy) && !json_is_true(json_object_get(copy, "done")))
		print_copy(copy);
	else if (why[0] != '\0')
		printf("  %s", why);
	else
		fputs("  serves", stdout);
	if (json_array_size(suspected) > 0) {
		fputs("; suspects", stdout);
		print_nodes(g, suspected);
	}
	end_line(redraw);
}

/* ---- the view and those before it ---- */

static void
print_history(const struct gather *g, bool redraw)
{
	const json_t *list = g->newest != NULL ? json_object_get(g->newest->membership, "history")
					       : NULL;
	char ago[32], why[GATHER_TEXT_BYTES];
	size_t n = json_array_size(list);

	if (n == 0)
		return;
	printf("views, as %s knows them", g->newest->member.name);
	end_line(redraw);
	for (size_t i = n; i > 0 && n - i < HISTORY_MAX; i--) { /* the newest is the last */
		const json_t *v = json_array_get(list, i - 1);

		ago_text(gather_number(v, "age_ms"), ago, sizeof(ago));
		gather_text(v, "why", why, sizeof(why));
		printf("  %-6" PRIu64 " %12s ago  voters", gather_number(v, "epoch"), ago);
		print_nodes(g, json_object_get(v, "voters"));
		if (json_array_size(json_object_get(v, "learners")) > 0) {
			fputs(", learners", stdout);
			print_nodes(g, json_object_get(v, "learners"));
		}
		if (why[0] != '\0')
			printf("  (%s)", why);
		end_line(redraw);
	}
}

/* Each shard: its leader, the others' roles, how far they are behind, why one waits. */
static void
print_shard(const struct gather *g, uint32_t shard, bool redraw)
{
	struct gather_instance i;
	struct gather_shard s;

	if (!gather_shard(g, shard, &s))
		return;
	printf("%-6u %-12s %6" PRIu64 " %12" PRIu64 "  %-8s ", shard, gather_name(g, s.leader), s.epoch,
	       s.committed, s.quorum);
	for (uint32_t n = 0; n < g->n; n++) {
		if (!gather_instance(&g->node[n], shard, &i)) {
			printf(" %s ?", g->node[n].member.name);
			continue;
		}
		printf(" %s %s", g->node[n].member.name, i.role);
		if (i.applied < s.committed)
			printf(" -%" PRIu64, s.committed - i.applied);
		if (i.waiting[0] != '\0')
			printf(" (%s)", i.waiting);
	}
	end_line(redraw);
}

static void
print_shards(const struct gather *g, bool redraw)
{
	if (!gather_has_leaders(g))
		return;
	printf("%-6s %-12s %6s %12s  %-8s  %s", "SHARD", "LEADER", "EPOCH", "COMMITTED", "QUORUM",
	       "REPLICAS, entries behind");
	end_line(redraw);
	for (uint32_t shard = 0; shard < g->shards; shard++)
		print_shard(g, shard, redraw);
}

/* What each member knows of its host: the store, what is not saved yet, how full the log is, how good the cache. */
static void
print_host(const struct gather_node *n, const json_t *host, bool redraw)
{
	char state[16], store[16], oldest[32], text[GATHER_TEXT_BYTES];
	const json_t *fill = json_object_get(host, "log_fill_pct"), *hit = json_object_get(host, "hit_pct");

	gather_text(host, "state", state, sizeof(state));
	gather_text(host, "store", store, sizeof(store));
	/* What a host that is not there, or will not have us, said last is not news. */
	if (strcmp(state, "away") == 0 || strcmp(state, "refuses") == 0)
		snprintf(store, sizeof(store), "-");
	gather_text(host, "text", text, sizeof(text));
	ago_text(gather_number(host, "oldest_ms"), oldest, sizeof(oldest));
	printf("%-4u %-12s %-10s %-6s %10" PRIu64 " %10s %6.1f %% %6.1f %% %10" PRIu64 " %12" PRIu64, n->member.id,
	       n->member.name, state, store, gather_number(host, "backlog"), oldest, json_number_value(fill),
	       json_number_value(hit), gather_number(host, "evictions"), gather_number(host, "items"));
	if (text[0] != '\0')
		printf("  %s", text);
	end_line(redraw);
}

static void
print_hosts(const struct gather *g, bool redraw)
{
	bool begun = false;

	for (uint32_t i = 0; i < g->n; i++) {
		const json_t *host = json_object_get(g->node[i].json, "host");

		if (!json_is_object(host))
			continue;
		if (!begun) {
			printf("%-4s %-12s %-10s %-6s %10s %10s %8s %8s %10s %12s  %s", "NODE", "NAME", "HOST", "STORE",
			       "BACKLOG", "OLDEST", "LOG", "HITS", "EVICTED", "STORED", "TEXT");
			end_line(redraw);
		}
		begun = true;
		print_host(&g->node[i], host, redraw);
	}
}

static void
print_block(const struct gather *g, bool redraw)
{
	char clock[16] = "";
	time_t now = time(NULL);
	struct tm tm;
	uint32_t serving = 0;

	for (uint32_t i = 0; i < g->n; i++)
		serving += g->node[i].serves && g->node[i].epoch == g->newest->epoch;
	if (localtime_r(&now, &tm) != NULL)
		(void)strftime(clock, sizeof(clock), "%H:%M:%S", &tm);
	printf("%s  %s: ", clock, g->cluster);
	if (g->newest != NULL && g->newest->epoch > 0)
		printf("view %" PRIu64 ", ", g->newest->epoch);
	else
		fputs("no view, ", stdout);
	printf("%u of %u serve", serving, g->n);
	end_line(redraw);
	printf("%-4s %-12s %-15s %-8s %6s %10s %5s  %s", "NODE", "NAME", "ADDRESS", "ROLE", "VIEW",
	       "LEASE", "LIVES", "STATE");
	end_line(redraw);
	for (uint32_t i = 0; i < g->n; i++)
		print_node(g, &g->node[i], redraw);
	print_shards(g, redraw);
	print_hosts(g, redraw);
	print_history(g, redraw);
}

static void
print_json(const struct gather *g)
{
	json_t *nodes = json_array();

	for (uint32_t i = 0; i < g->n; i++) {
		const struct gather_node *n = &g->node[i];
		json_t *v = json_pack("{si ss sb}", "node", (int)n->member.id, "name",
				      n->member.name, "answered", n->json != NULL);

		if (n->membership != NULL)
			json_object_set_new(v, "membership", json_deep_copy(n->membership));
		if (n->instances != NULL)
			json_object_set_new(v, "instances", json_deep_copy(n->instances));
		if (json_is_object(json_object_get(n->json, "host")))
			json_object_set_new(v, "host", json_deep_copy(json_object_get(n->json, "host")));
		json_array_append_new(nodes, v);
	}
	ctl_json_print(json_pack("{sI so}", "epoch",
				 (json_int_t)(g->newest != NULL ? g->newest->epoch : 0), "nodes",
				 nodes));
}

int
ctl_watch(struct ctl *ctl, double interval_s, uint64_t count)
{
	static struct gather g;
	struct timespec wait = { .tv_sec = (time_t)interval_s };
	bool redraw = isatty(STDOUT_FILENO) == 1 && !ctl->json;

	wait.tv_nsec = (long)((interval_s - (double)wait.tv_sec) * 1e9);
	for (uint64_t i = 0; count == 0 || i < count; i++) {
		if (i > 0)
			nanosleep(&wait, NULL);
		gather(ctl->c, ctl->node, &g);
		if (redraw) /* home; and the first time everything away */
			fputs(i == 0 ? "\033[2J\033[H" : "\033[H", stdout);
		else if (i > 0 && !ctl->json)
			fputc('\n', stdout);
		if (ctl->json)
			print_json(&g);
		else
			print_block(&g, redraw);
		if (redraw)
			fputs("\033[J", stdout); /* and what was below */
		gather_free(&g);
		if (fflush(stdout) != 0)
			return ctl_fail(ctl, CTL_ERROR, "cannot write any more");
	}
	return CTL_OK;
}
