/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The commands about replicas: ping, info.
 */
#include "ctl.h"

#include <stdlib.h>
#include <time.h>

#define PINGS_MAX 1000000u

/* ---- ping ---- */

struct target {
	uint32_t node, shard;
	uint64_t sent, answered;
	uint64_t min_ns, max_ns, sum_ns;
	struct chaapar_result last;
};

struct pings {
	struct ctl *ctl;
	struct target *target;
	uint32_t n;
};

static void
on_pong(struct chaapar *c, void *arg, const struct chaapar_result *r)
{
	struct target *t = arg;

	(void)c;
	t->last = *r;
	t->sent++;
	if (r->status != CHAAPAR_OK)
		return;
	t->answered++;
	t->sum_ns += r->latency_ns;
	if (t->answered == 1 || r->latency_ns < t->min_ns)
		t->min_ns = r->latency_ns;
	if (r->latency_ns > t->max_ns)
		t->max_ns = r->latency_ns;
}

static void
print_round(const struct pings *p, uint64_t round)
{
	const struct chaapar_info *info = chaapar_info(p->ctl->c);

	for (uint32_t i = 0; i < p->n && !p->ctl->json; i++) {
		const struct target *t = &p->target[i];
		const struct chaapar_result *r = &t->last;
		const char *name = ctl_member_name(info, (int)t->node);

		if (r->status != CHAAPAR_OK) {
			printf("%llu  %s shard %u: %s\n", (unsigned long long)round, name, t->shard,
			       r->cause == CHAAPAR_OK ? "no answer"
						      : chaapar_strerror((int)r->cause));
			continue;
		}
		printf("%llu  %s shard %u: %.3f ms", (unsigned long long)round, name, t->shard,
		       (double)r->latency_ns / 1e6);
		if (r->retries > 0)
			printf(" (sent %u times)", r->retries + 1);
		fputc('\n', stdout);
	}
	fflush(stdout);
}

static int
one_round(const struct pings *p)
{
	struct chaapar *c = p->ctl->c;

	for (uint32_t i = 0; i < p->n; i++) {
		struct target *t = &p->target[i];
		int err = chaapar_ping(c, t->node, t->shard, on_pong, t);

		if (err != 0)
			return ctl_fail(p->ctl, CTL_ERROR, "%s", chaapar_strerror(err));
	}
	while (chaapar_in_flight(c) > 0)
		(void)chaapar_poll(c, -1);
	return CTL_OK;
}

static void
print_summary(const struct pings *p)
{
	const struct chaapar_info *info = chaapar_info(p->ctl->c);
	json_t *list = json_array();

	for (uint32_t i = 0; i < p->n; i++) {
		const struct target *t = &p->target[i];
		const char *name = ctl_member_name(info, (int)t->node);
		double mean = t->answered > 0 ? (double)t->sum_ns / (double)t->answered / 1e3 : 0;

		if (p->ctl->json)
			json_array_append_new(
				list,
				json_pack("{si ss si sI sI sf sf sf}", "node", (int)t->node, "name",
					  name, "shard", (int)t->shard, "sent", (json_int_t)t->sent,
					  "answered", (json_int_t)t->answered, "min_us",
					  (double)t->min_ns / 1e3, "mean_us", mean, "max_us",
					  (double)t->max_ns / 1e3));
		else if (t->sent > 1)
			printf("%s shard %u: %llu of %llu answered, "
			       "min/mean/max %.3f/%.3f/%.3f ms\n",
			       name, t->shard, (unsigned long long)t->answered,
			       (unsigned long long)t->sent, (double)t->min_ns / 1e6, mean / 1e3,
			       (double)t->max_ns / 1e6);
	}
	if (p->ctl->json)
		ctl_json_print(json_pack("{so}", "pings", list));
	else
		json_decref(list);
}

static int
run_pings(struct pings *p, uint64_t count, double interval_s)
{
	struct timespec wait = { .tv_sec = (time_t)interval_s };
	int code = CTL_OK;

	wait.tv_nsec = (long)((interval_s - (double)wait.tv_sec) * 1e9);
	for (uint64_t i = 0; i < count && code == CTL_OK; i++) {
		if (i > 0)
			nanosleep(&wait, NULL);
		code = one_round(p);
		print_round(p, i + 1);
	}
	print_summary(p);
	for (uint32_t i = 0; i < p->n && code == CTL_OK; i++) {
		if (p->target[i].answered == 0)
			code = CTL_NO_ANSWER;
	}
	return code;
}

int
ctl_ping(struct ctl *ctl, int argc, char **argv)
{
	static const struct option own[] = {
		{ "count", required_argument, NULL, CTL_OPTION_OWN },
		{ "interval", required_argument, NULL, CTL_OPTION_OWN + 1 },
		{ 0 },
	};
	struct pings p = { .ctl = ctl };
	const struct chaapar_info *info;
	uint64_t count = 1;
	double interval_s = 1;
	int o, node = -1, code;

	while ((o = ctl_getopt(ctl, argc, argv, own)) >= CTL_OPTION_OWN) {
		if (o == CTL_OPTION_OWN &&
		    !ctl_number(ctl, "--count", optarg, 1, PINGS_MAX, &count))
			return CTL_USAGE;
		if (o != CTL_OPTION_OWN && !ctl_fraction(ctl, "--interval", optarg, &interval_s))
			return CTL_USAGE;
	}
	if (o != -1)
		return o == 'h' ? CTL_OK : CTL_USAGE;
	if (argc > optind)
		return ctl_usage(ctl, "unexpected argument \"%s\"", argv[optind]);
	node = ctl->node;
	code = ctl_connect_within(ctl, CTL_TIMEOUT_MS_OBSERVE);
	if (code != CTL_OK)
		return code;
	info = chaapar_info(ctl->c);
	p.target = calloc((size_t)info->n_members * info->shards, sizeof(*p.target));
	if (p.target == NULL)
		return ctl_fail(ctl, CTL_ERROR, "out of memory");
	for (uint32_t i = 0; i < info->n_members; i++) {
		for (uint32_t s = 0; s < info->shards; s++) {
			if (node < 0 || info->member[i].id == (uint32_t)node)
				p.target[p.n++] =
					(struct target){ .node = info->member[i].id, .shard = s };
		}
	}
	code = run_pings(&p, count, interval_s);
	free(p.target);
	return code;
}

/* ---- info ---- */

static json_t *
info_json(const struct chaapar_info *i)
{
	json_t *members = json_array();
	char hash[16], seed[24];

	for (uint32_t n = 0; n < i->n_members; n++)
		json_array_append_new(members, json_pack("{si ss ss}", "id", (int)i->member[n].id,
							 "name", i->member[n].name, "address",
							 i->member[n].address));
	snprintf(hash, sizeof(hash), "%08x", i->hash);
	snprintf(seed, sizeof(seed), "%llu", (unsigned long long)i->hash_seed);
	return json_pack("{ss ss ss si ss si si si si si si sI si so}", "name", i->name,
			 "protocol", i->protocol, "hash", hash,
			 "shards", (int)i->shards, "hash_seed", seed, "port_base",
			 (int)i->port_base, "control_port", (int)i->control_port, "mtu",
			 (int)i->mtu, "key_bytes_max", (int)i->key_bytes_max, "value_bytes_max",
			 (int)i->value_bytes_max, "session_window", (int)i->session_window, "epoch",
			 (json_int_t)i->epoch, "answered_by", (int)i->node, "members", members);
}

int
ctl_info(struct ctl *ctl, int argc, char **argv)
{
	int o = ctl_getopt(ctl, argc, argv, NULL), code;
	const struct chaapar_info *i;

	if (o != -1)
		return o == 'h' ? CTL_OK : CTL_USAGE;
	if (argc > optind)
		return ctl_usage(ctl, "unexpected argument \"%s\"", argv[optind]);
	code = ctl_connect_within(ctl, CTL_TIMEOUT_MS_OBSERVE);
	if (code != CTL_OK)
		return code;
	i = chaapar_info(ctl->c);
	if (ctl->json) {
		ctl_json_print(info_json(i));
		return CTL_OK;
	}
	printf("cluster       %s, %s%shash %08x, view %llu\n", i->name, i->protocol,
	       i->protocol[0] != '\0' ? ", " : "", i->hash, (unsigned long long)i->epoch);
	printf("shards        %u, hash seed %llu\n", i->shards, (unsigned long long)i->hash_seed);
	printf("UDP ports     %u to %u shards, %u control, %u any shard\n", i->port_base,
	       i->port_base + i->shards - 1, i->control_port, i->control_port + 1);
	printf("at most       %u bytes of key, %u of value, "
	       "%u writes in flight per session, MTU %u\n",
	       i->key_bytes_max, i->value_bytes_max, i->session_window, i->mtu);
	for (uint32_t n = 0; n < i->n_members; n++)
		printf("member %-2u     %-12s %s%s\n", i->member[n].id, i->member[n].name,
		       i->member[n].address, i->member[n].id == i->node ? "  (answered)" : "");
	return CTL_OK;
}
