/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The command quorum: how many replicas must have a write before it is acknowledged, of every shard or one.
 */
#include "ctl.h"

#include <stdlib.h>
#include <string.h>

struct answer {
	uint32_t shard;
	struct chaapar_result r;
};

static void
on_answer(struct chaapar *c, void *arg, const struct chaapar_result *r)
{
	struct answer *a = arg;

	(void)c;
	a->r = *r;
	a->r.value = NULL;
}

static const char *
rule_name(const struct chaapar_result *r)
{
	if (r->number == CHAAPAR_QUORUM_MAJORITY)
		return "majority";
	return r->number == CHAAPAR_QUORUM_ALL ? "all" : "unknown";
}

static void
print_text(const struct ctl *ctl, const struct answer *a)
{
	const struct chaapar_info *info = chaapar_info(ctl->c);

	if (a->r.status == CHAAPAR_OK)
		printf("shard %u: %s, says %s\n", a->shard, rule_name(&a->r), ctl_member_name(info, a->r.node));
	else if (a->r.status == CHAAPAR_UNKNOWN_OP)
		ctl_fail(ctl, 0, "shard %u: %s has no choice of quorums", a->shard,
			 info->protocol[0] != '\0' ? info->protocol : "the cluster's protocol");
	else if (a->r.cause != CHAAPAR_OK && a->r.cause != a->r.status)
		ctl_fail(ctl, 0, "shard %u: %s (the last answer was: %s)", a->shard,
			 chaapar_strerror((int)a->r.status), chaapar_strerror((int)a->r.cause));
	else
		ctl_fail(ctl, 0, "shard %u: %s", a->shard, chaapar_strerror((int)a->r.status));
}

static json_t *
answer_json(const struct answer *a)
{
	json_t *o = json_pack("{si ss}", "shard", (int)a->shard, "status", chaapar_status_name(a->r.status));

	if (a->r.status == CHAAPAR_OK)
		json_object_set_new(o, "quorum", json_string(rule_name(&a->r)));
	if (a->r.node != CHAAPAR_ANY_NODE)
		json_object_set_new(o, "node", json_integer(a->r.node));
	return o;
}

/* All shards at the same time: one that waits for a dead replica must not hold up the others. */
static int
ask(struct ctl *ctl, struct answer *answer, uint32_t n, enum chaapar_quorum rule)
{
	json_t *list = json_array();
	int code = CTL_OK;

	for (uint32_t i = 0; i < n; i++) {
		int err = chaapar_quorum(ctl->c, answer[i].shard, rule, on_answer, &answer[i]);

		if (err != 0)
			answer[i].r = (struct chaapar_result){ .status = CHAAPAR_NO_MEMORY, .node = CHAAPAR_ANY_NODE };
	}
	while (chaapar_in_flight(ctl->c) > 0)
		(void)chaapar_poll(ctl->c, -1);
	for (uint32_t i = 0; i < n; i++) {
		if (ctl->json)
			json_array_append_new(list, answer_json(&answer[i]));
		else
			print_text(ctl, &answer[i]);
		if (answer[i].r.status != CHAAPAR_OK && code != CTL_ERROR)
			code = ctl_exit_code(answer[i].r.status);
	}
	if (ctl->json)
		ctl_json_print(json_pack("{so}", "shards", list));
	else
		json_decref(list);
	return code;
}

/* The rule that is wanted: nothing asks for the one in force. */
static bool
take_rule(const struct ctl *ctl, const char *text, enum chaapar_quorum *rule)
{
	*rule = CHAAPAR_QUORUM_ASK;
	if (text == NULL)
		return true;
	if (strcmp(text, "majority") == 0)
		*rule = CHAAPAR_QUORUM_MAJORITY;
	else if (strcmp(text, "all") == 0)
		*rule = CHAAPAR_QUORUM_ALL;
	else
		ctl_usage(ctl, "expected majority or all, not \"%s\"", text);
	return *rule != CHAAPAR_QUORUM_ASK;
}

int
ctl_quorum(struct ctl *ctl, int argc, char **argv)
{
	static const struct option own[] = { { "shard", required_argument, NULL, CTL_OPTION_OWN }, { 0 } };
	static struct answer answer[CHAAPAR_SHARDS_MAX];
	enum chaapar_quorum rule;
	uint64_t shard = UINT64_MAX;
	uint32_t n = 0, shards;
	int o, code;

	while ((o = ctl_getopt(ctl, argc, argv, own)) == CTL_OPTION_OWN) {
		if (!ctl_number(ctl, "--shard", optarg, 0, CHAAPAR_SHARDS_MAX - 1, &shard))
			return CTL_USAGE;
	}
	if (o != -1)
		return o == 'h' ? CTL_OK : CTL_USAGE;
	if (argc - optind > 1)
		return ctl_usage(ctl, "unexpected argument \"%s\"", argv[optind + 1]);
	if (!take_rule(ctl, argv[optind], &rule)) /* argv ends with NULL */
		return CTL_USAGE;
	code = ctl_connect(ctl);
	if (code != CTL_OK)
		return code;
	shards = chaapar_info(ctl->c)->shards;
	if (shard != UINT64_MAX && shard >= shards)
		return ctl_usage(ctl, "--shard: the cluster has shards 0 to %u", shards - 1);
	for (uint32_t i = 0; i < shards; i++) {
		if (shard == UINT64_MAX || shard == i)
			answer[n++].shard = i;
	}
	return ask(ctl, answer, n, rule);
}
