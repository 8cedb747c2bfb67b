/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The command status. Replicas say what they count; this prints whatever arrives: a row for each
 * name, a column for each shard. Rows of nothing but zeros are left out unless --all is given.
 */
#include "ctl.h"
#include "watch.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define SHARDS_MAX 64u
#define PATH_BYTES 128u
#define DEPTH_MAX  8u
#define ROWS_MAX   4096u
#define CELL_BYTES 512u /* a reason names several members with their addresses */
#define CELL_WIDE  20u

struct row {
	char path[PATH_BYTES];
	const json_t *cell[SHARDS_MAX];
};

struct table {
	struct row *row;
	uint32_t n, capacity;
	uint32_t columns;
	bool all;
};

/* ---- tables of JSON ---- */

/* The row of a path: rows stand in the order in which they came first, so the next one is near. */
static struct row *
row_of(struct table *t, const char *path, uint32_t *hint)
{
	for (uint32_t i = 0; i < t->n; i++) {
		uint32_t at = (*hint + i) % t->n;

		if (strcmp(t->row[at].path, path) == 0) {
			*hint = at + 1;
			return &t->row[at];
		}
	}
	if (t->n == ROWS_MAX)
		return NULL;
	if (t->n == t->capacity) {
		uint32_t capacity = t->capacity > 0 ? 2 * t->capacity : 64;
		struct row *more = realloc(t->row, capacity * sizeof(*more));

		if (more == NULL)
			return NULL;
		t->row = more;
		t->capacity = capacity;
	}
	memset(&t->row[t->n], 0, sizeof(t->row[0]));
	snprintf(t->row[t->n].path, PATH_BYTES, "%s", path);
	*hint = t->n + 1;
	return &t->row[t->n++];
}

/* One value that is neither object nor list, or all inside one. The depth is limited: data of
 * others. */
static void
add(struct table *t, uint32_t column, const char *path, const json_t *value, uint32_t depth,
    uint32_t *hint)
{
	char below[PATH_BYTES];
	const char *key;
	json_t *v;
	size_t i;

	if (depth == DEPTH_MAX)
		return;
	if (json_is_object(value)) {
		json_object_foreach ((json_t *)(uintptr_t)value, key, v) {
			snprintf(below, sizeof(below), "%s%s%s", path, path[0] != '\0' ? "." : "",
				 key);
			add(t, column, below, v, depth + 1, hint);
		}
	} else if (json_is_array(value)) {
		json_array_foreach (value, i, v) {
			snprintf(below, sizeof(below), "%s[%zu]", path, i);
			add(t, column, below, v, depth + 1, hint);
		}
	} else {
		struct row *r = row_of(t, path, hint);

		if (r != NULL)
			r->cell[column] = value;
	}
}

static void
cell_text(const json_t *v, char *to, size_t size)
{
	if (v == NULL)
		snprintf(to, size, "-");
	else if (json_is_integer(v))
		snprintf(to, size, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
	else if (json_is_real(v))
		snprintf(to, size, "%.3f", json_real_value(v));
	else if (json_is_string(v))
		snprintf(to, size, "%s", json_string_value(v));
	else
		snprintf(to, size, "%s",
			 json_is_true(v)    ? "yes"
			 : json_is_false(v) ? "no"
					    : "null");
}

static bool
is_zero(const struct row *r, uint32_t columns)
{
	for (uint32_t i = 0; i < columns; i++) {
		const json_t *v = r->cell[i];

		if (v != NULL && (!json_is_integer(v) || json_integer_value(v) != 0) &&
		    (!json_is_string(v) || json_string_length(v) > 0))
			return false;
	}
	return true;
}

/* Whether a row has a text that would tear its columns apart. */
static bool
is_wide(const struct row *r, uint32_t columns)
{
	for (uint32_t i = 0; i < columns; i++) {
		if (json_string_length(r->cell[i]) > CELL_WIDE)
			return true;
	}
	return false;
}

/* What comes before the last dot is a heading of its own line; the rest is the row's name. */
static const char *
split(const char *path, size_t *group_len)
{
	const char *dot = strrchr(path, '.');

	*group_len = dot != NULL ? (size_t)(dot - path) : 0;
	return dot != NULL ? dot + 1 : path;
}

/* Long texts get a line each, with the column's number. */
static void
print_row(const struct row *r, uint32_t columns, const char *name, bool is_below)
{
	bool wide = columns > 1 && is_wide(r, columns);
	char text[CELL_BYTES];

	if (!wide)
		printf("  %s%-*s", is_below ? "  " : "", is_below ? 22 : 24, name);
	for (uint32_t c = 0; c < columns; c++) {
		cell_text(r->cell[c], text, sizeof(text));
		if (!wide)
			printf(" %16s", text);
		else if (text[0] != '\0' && r->cell[c] != NULL)
			printf("  %s%-*s [%u] %s\n", is_below ? "  " : "", is_below ? 22 : 24, name, c, text);
	}
	if (!wide)
		fputc('\n', stdout);
}

static void
print_table(const struct table *t)
{
	char group[PATH_BYTES] = "";

	for (uint32_t i = 0; i < t->n; i++) {
		const struct row *r = &t->row[i];
		size_t len;
		const char *name = split(r->path, &len);

		if (!t->all && is_zero(r, t->columns))
			continue;
		if (len != strlen(group) || memcmp(group, r->path, len) != 0) {
			memcpy(group, r->path, len);
			group[len] = '\0';
			if (len > 0)
				printf("  %s\n", group);
		}
		print_row(r, t->columns, name, len > 0);
	}
}

/* ---- asking ---- */

/* A section as JSON, NULL after a report. */
static json_t *
section(struct ctl *ctl, const struct chaapar_member *m, uint32_t number, int *code)
{
	char *text;
	enum chaapar_status status = chaapar_node_status(ctl->c, m->id, number, &text);
	json_error_t error;
	json_t *v;

	if (status != CHAAPAR_OK) {
		*code = ctl_fail(ctl, ctl_exit_code(status), "%s (%s): %s", m->name, m->address,
				 status == CHAAPAR_TIMEOUT ? "no answer in time"
						      : chaapar_strerror((int)status));
		return NULL;
	}
	v = json_loads(text, 0, &error);
	if (v == NULL)
		*code = ctl_fail(ctl, CTL_ERROR, "%s (%s): section %u is no JSON: %s", m->name,
				 m->address, number, error.text);
	free(text);
	return v;
}

/* A list of objects, as members or lcores: a column for each. */
static void
print_list(const char *name, const json_t *list, bool all)
{
	struct table t = { .columns = (uint32_t)json_array_size(list), .all = all };
	uint32_t hint;

	if (t.columns > SHARDS_MAX)
		t.columns = SHARDS_MAX;
	for (uint32_t i = 0; i < t.columns; i++) {
		hint = 0;
		add(&t, i, name, json_array_get(list, i), 0, &hint);
	}
	print_table(&t);
	free(t.row);
}

/* What stands alone first, then lists. */
static void
print_node(const struct chaapar_member *m, json_t *node, const json_t *shards, bool all)
{
	struct table t = { .columns = 1, .all = all };
	uint32_t hint = 0;
	const char *key;
	json_t *v;

	printf("== %s (node %u, %s)\n", m->name, m->id, m->address);
	json_object_foreach(node, key, v) {
		if (!json_is_object(json_array_get(v, 0)))
			add(&t, 0, key, v, 0, &hint);
	}
	print_table(&t);
	free(t.row);
	json_object_foreach(node, key, v) {
		/* What "instances" has, the shards say at greater length. */
		if (json_is_object(json_array_get(v, 0)) && strcmp(key, "instances") != 0)
			print_list(key, v, all);
	}
	print_list("", shards, all);
}

static json_t *
ask_node(struct ctl *ctl, const struct chaapar_member *m, uint32_t n_shards, bool all, int *code)
{
	json_t *node = section(ctl, m, 0, code), *shards, *both;

	if (node == NULL)
		return NULL;
	shards = json_array();
	for (uint32_t s = 0; s < n_shards && s < SHARDS_MAX; s++) {
		json_t *v = section(ctl, m, 1 + s, code);

		if (v == NULL)
			break;
		json_array_append_new(shards, v);
	}
	if (!ctl->json)
		print_node(m, node, shards, all);
	both = json_pack("{so so}", "node", node, "shards", shards);
	return both;
}

/* Every replica once, with its counters. */
static int
print_all(struct ctl *ctl, bool all)
{
	struct chaapar_info info = *chaapar_info(ctl->c); /* a copy: each call may learn a new one */
	json_t *nodes = json_array();
	int code = CTL_OK;

	for (uint32_t i = 0; i < info.n_members; i++) {
		json_t *one;

		if (ctl->node != CHAAPAR_ANY_NODE && info.member[i].id != (uint32_t)ctl->node)
			continue;
		one = ask_node(ctl, &info.member[i], info.shards, all, &code);
		if (one != NULL)
			json_array_append_new(nodes, one);
	}
	if (ctl->json)
		ctl_json_print(json_pack("{so}", "nodes", nodes));
	else
		json_decref(nodes);
	return code;
}

int
ctl_status(struct ctl *ctl, int argc, char **argv)
{
	enum { ALL = CTL_OPTION_OWN, WATCH, INTERVAL, COUNT };
	static const struct option own[] = {
		{ "all", no_argument, NULL, ALL },
		{ "watch", no_argument, NULL, WATCH },
		{ "interval", required_argument, NULL, INTERVAL },
		{ "count", required_argument, NULL, COUNT },
		{ 0 },
	};
	bool all = false, watch = false, only_watch = false;
	double interval_s = 1;
	uint64_t count = 0;
	int o, code;

	while ((o = ctl_getopt(ctl, argc, argv, own)) >= CTL_OPTION_OWN) {
		all = all || o == ALL;
		watch = watch || o == WATCH;
		only_watch = only_watch || o == INTERVAL || o == COUNT;
		if (o == INTERVAL && !ctl_fraction(ctl, "--interval", optarg, &interval_s))
			return CTL_USAGE;
		if (o == COUNT && !ctl_number(ctl, "--count", optarg, 1, UINT32_MAX, &count))
			return CTL_USAGE;
	}
	if (o != -1)
		return o == 'h' ? CTL_OK : CTL_USAGE;
	if (argc > optind)
		return ctl_usage(ctl, "unexpected argument \"%s\"", argv[optind]);
	if (watch ? all : only_watch)
		return ctl_usage(ctl, watch ? "--all goes with counters, which --watch does not show"
					    : "--interval and --count go with --watch");
	code = ctl_connect_within(ctl, CTL_TIMEOUT_MS_OBSERVE);
	if (code != CTL_OK)
		return code;
	return watch ? ctl_watch(ctl, interval_s, count) : print_all(ctl, all);
}
