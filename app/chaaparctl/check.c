/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The command check: is a recorded history linearizable?
 */
#include "ctl.h"

#include "history/linear.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Several files are one history: each process of a run may have written its own. */
static FILE *
join(struct ctl *ctl, int n, char **name)
{
	static char buffer[1 << 16];
	FILE *all = tmpfile();

	for (int i = 0; i < n && all != NULL; i++) {
		FILE *f = fopen(name[i], "r");
		size_t got;

		if (f == NULL) {
			ctl_fail(ctl, 0, "%s: %s", name[i], strerror(errno));
			fclose(all);
			return NULL;
		}
		while ((got = fread(buffer, 1, sizeof(buffer), f)) > 0)
			fwrite(buffer, 1, got, all);
		fclose(f);
	}
	if (all == NULL || fflush(all) != 0 || fseek(all, 0, SEEK_SET) != 0) {
		ctl_fail(ctl, 0, "temporary file: %s", strerror(errno));
		return NULL;
	}
	return all;
}

static FILE *
open_history(struct ctl *ctl, int n, char **name)
{
	FILE *f;

	if (n > 1)
		return join(ctl, n, name);
	if (strcmp(name[0], "-") == 0)
		return stdin;
	f = fopen(name[0], "r");
	if (f == NULL)
		ctl_fail(ctl, 0, "%s: %s", name[0], strerror(errno));
	return f;
}

static void
print_json(const struct chp_history *h, const struct chp_linear_report *r)
{
	ctl_json_print(json_pack(
		"{ss ss sI sI sI sI sI sI sI ss}", "verdict", chp_linear_verdict_name(r->verdict),
		"fault", chp_linear_fault_name(r->fault), "operations", (json_int_t)h->n_ops,
		"keys", (json_int_t)h->n_keys, "keys_by_version", (json_int_t)r->keys_by_version,
		"keys_by_search", (json_int_t)r->keys_by_search, "keys_undecided",
		(json_int_t)r->keys_undecided, "keys_violated", (json_int_t)r->keys_violated,
		"states", (json_int_t)r->states, "text", r->text));
}

static void
print_text(const struct chp_history *h, const struct chp_linear_report *r)
{
	static const char *const verdict[] = {
		[CHP_LINEAR_OK] = "linearizable",
		[CHP_LINEAR_UNDECIDED] = "undecided",
		[CHP_LINEAR_VIOLATION] = "NOT linearizable",
	};

	printf("%s: %u operations on %u keys "
	       "(%llu keys by version order, %llu by search, %llu undecided)\n",
	       verdict[r->verdict], h->n_ops, h->n_keys, (unsigned long long)r->keys_by_version,
	       (unsigned long long)r->keys_by_search, (unsigned long long)r->keys_undecided);
	if (r->text[0] != '\0')
		printf("%s\n", r->text);
}

static int
judge(struct ctl *ctl, const struct chp_history *h, const struct chp_linear_limits *limits)
{
	static struct chp_linear_report r;
	int err = chp_linear_check(h, limits, &r);

	if (err != 0)
		return ctl_fail(ctl, CTL_ERROR, "%s", chaapar_strerror(err));
	if (ctl->json)
		print_json(h, &r);
	else
		print_text(h, &r);
	return r.verdict == CHP_LINEAR_OK ? CTL_OK : CTL_ERROR;
}

int
ctl_check(struct ctl *ctl, int argc, char **argv)
{
	static const struct option own[] = { { "states", required_argument, NULL, CTL_OPTION_OWN },
					     { 0 } };
	struct chp_linear_limits limits = { 0 };
	struct chp_history_error error = { 0 };
	struct chp_history h;
	FILE *f;
	int o, err, code;

	while ((o = ctl_getopt(ctl, argc, argv, own)) == CTL_OPTION_OWN) {
		if (!ctl_number(ctl, "--states", optarg, 1, UINT64_MAX, &limits.states_max))
			return CTL_USAGE;
	}
	if (o != -1)
		return o == 'h' ? CTL_OK : CTL_USAGE;
	if (argc == optind)
		return ctl_usage(ctl, "expected FILE");
	f = open_history(ctl, argc - optind, argv + optind);
	if (f == NULL)
		return CTL_ERROR;
	chp_history_init(&h);
	err = chp_history_read(&h, f, &error);
	if (err == -EINVAL)
		code = ctl_fail(ctl, CTL_ERROR, "%s: %s", argv[optind], error.text);
	else if (err != 0)
		code = ctl_fail(ctl, CTL_ERROR, "%s: %s", argv[optind], chaapar_strerror(err));
	else
		code = judge(ctl, &h, &limits);
	chp_history_fini(&h);
	if (f != stdin)
		fclose(f);
	return code;
}
