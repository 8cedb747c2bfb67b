/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The command load: keeps many requests in flight, records what was asked and answered.
 *
 * One thread and one poll loop for all clients. Each client is a handle of the library with
 * sessions of its own, bound to replica i mod n.
 */
#include "load.h"

#include "base/bytes.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define DEFAULT_MIX "get=70,put=20,cas=4,incr=3,delete=1,add=1,append=1"
/* The history's buffer: a burst of answers must not become a burst of system calls. */
#define HISTORY_BUFFER_BYTES (1u << 20)

static volatile sig_atomic_t stopped; /* set by a signal handler, read by the loop */

static void
on_signal(int number)
{
	(void)number;
	stopped = 1;
}

uint64_t
load_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- options ---- */

enum {
	O_KEYS = CTL_OPTION_OWN,
	O_PREFIX,
	O_PRELOAD,
	O_MIX,
	O_CLIENTS,
	O_DEPTH,
	O_DURATION,
	O_OPS,
	O_VALUE_BYTES,
	O_ZIPF,
	O_HISTORY,
	O_TIMELINE,
	O_RATE,
	O_RELAXED,
	O_REPORT,
};

static const struct option own_options[] = {
	{ "keys", required_argument, NULL, O_KEYS },
	{ "key-prefix", required_argument, NULL, O_PREFIX },
	{ "preload", no_argument, NULL, O_PRELOAD },
	{ "mix", required_argument, NULL, O_MIX },
	{ "clients", required_argument, NULL, O_CLIENTS },
	{ "depth", required_argument, NULL, O_DEPTH },
	{ "duration", required_argument, NULL, O_DURATION },
	{ "ops", required_argument, NULL, O_OPS },
	{ "value-bytes", required_argument, NULL, O_VALUE_BYTES },
	{ "zipf", required_argument, NULL, O_ZIPF },
	{ "history", required_argument, NULL, O_HISTORY },
	{ "timeline", required_argument, NULL, O_TIMELINE },
	{ "rate", required_argument, NULL, O_RATE },
	{ "relaxed", required_argument, NULL, O_RELAXED },
	{ "report-interval", required_argument, NULL, O_REPORT },
	{ 0 },
};

static bool
take_option(struct ctl *ctl, struct load_options *o, int option, bool *has_duration)
{
	switch (option) {
	case O_KEYS:
		return ctl_number(ctl, "--keys", optarg, 1, UINT64_C(1) << 32, &o->keys);
	case O_PREFIX:
		o->prefix = optarg;
		return strlen(optarg) <= LOAD_KEY_BYTES - 24 ||
		       (ctl_usage(ctl, "--key-prefix: at most %u bytes", LOAD_KEY_BYTES - 24),
			false);
	case O_PRELOAD:
		o->preload = true;
		return true;
	case O_MIX:
		return load_mix_parse(ctl, optarg, o);
	case O_CLIENTS:
		return ctl_number(ctl, "--clients", optarg, 1, LOAD_CLIENTS_MAX, &o->clients);
	case O_DEPTH:
		return ctl_number(ctl, "--depth", optarg, 1, CHAAPAR_IN_FLIGHT_MAX, &o->depth);
	case O_DURATION:
		*has_duration = true;
		return ctl_fraction(ctl, "--duration", optarg, &o->duration_s);
	case O_OPS:
		return ctl_number(ctl, "--ops", optarg, 0, UINT64_MAX, &o->ops);
	case O_VALUE_BYTES:
		return ctl_number(ctl, "--value-bytes", optarg, LOAD_VALUE_BYTES_MIN,
				  LOAD_VALUE_BYTES_MAX, &o->value_bytes);
	case O_ZIPF:
		return ctl_fraction(ctl, "--zipf", optarg, &o->theta);
	case O_HISTORY:
		o->history = optarg;
		return true;
	case O_TIMELINE:
		o->timeline = optarg;
		return true;
	case O_RELAXED:
		return ctl_number(ctl, "--relaxed", optarg, 0, 100, &o->relaxed_pct);
	case O_RATE:
		return ctl_number(ctl, "--rate", optarg, 1, 100000000, &o->rate);
	default:
		return ctl_fraction(ctl, "--report-interval", optarg, &o->report_interval_s);
	}
}

/* CTL_OK, -1 after help, or an exit code. */
static int
take_options(struct ctl *ctl, int argc, char **argv, struct load_options *o)
{
	bool has_duration = false;
	int option;

	*o = (struct load_options){ .keys = 1000,
				    .clients = 1,
				    .depth = 16,
				    .value_bytes = 32,
				    .prefix = "k",
				    .ops = UINT64_MAX,
				    .duration_s = 10,
				    .report_interval_s = 1 };
	(void)load_mix_parse(ctl, DEFAULT_MIX, o);
	while ((option = ctl_getopt(ctl, argc, argv, own_options)) >= CTL_OPTION_OWN) {
		if (!take_option(ctl, o, option, &has_duration))
			return CTL_USAGE;
	}
	if (option != -1)
		return option == 'h' ? -1 : CTL_USAGE;
	if (argc > optind)
		return ctl_usage(ctl, "unexpected argument \"%s\"", argv[optind]);
	if (o->ops != UINT64_MAX && !has_duration)
		o->duration_s = 0; /* as long as it takes */
	return CTL_OK;
}

/* ---- clients ---- */

static int
open_client(struct load *l, uint32_t i, const struct chaapar_info *info)
{
	struct load_client *client = &l->client[i];
	struct chaapar_options o = CHAAPAR_OPTIONS_INIT;
	int err;

	o.node = l->ctl->node != CHAAPAR_ANY_NODE ? l->ctl->node
						  : (int)info->member[i % info->n_members].id;
	o.only_node = l->ctl->node != CHAAPAR_ANY_NODE;
	o.timeout_ms = l->ctl->timeout_ms;
	o.in_flight_max = (uint32_t)l->o.depth;
	client->load = l;
	client->id = (uint64_t)getpid() << 16 | i;
	client->slot = calloc(l->o.depth, sizeof(*client->slot));
	if (client->slot == NULL)
		return ctl_fail(l->ctl, CTL_ERROR, "out of memory");
	for (uint64_t s = 0; s < l->o.depth; s++) {
		client->slot[s].client = client;
		client->slot[s].next = client->idle;
		client->idle = &client->slot[s];
	}
	client->c = chaapar_open(l->ctl->endpoints, &o, &err);
	if (client->c == NULL)
		return ctl_open_failed(l->ctl, err);
	l->n_clients++;
	return CTL_OK;
}

static int
open_all(struct load *l)
{
	struct chaapar_info info;
	int code = ctl_connect(l->ctl);

	if (code != CTL_OK)
		return code;
	info = *chaapar_info(l->ctl->c);
	if (l->o.value_bytes > info.value_bytes_max)
		return ctl_usage(l->ctl, "--value-bytes: the cluster takes at most %u",
				 info.value_bytes_max);
	l->client = calloc(l->o.clients, sizeof(*l->client));
	if (l->client == NULL)
		return ctl_fail(l->ctl, CTL_ERROR, "out of memory");
	for (uint32_t i = 0; i < l->o.clients && code == CTL_OK && !stopped; i++)
		code = open_client(l, i, &info);
	return code;
}

static void
close_all(struct load *l)
{
	for (uint32_t i = 0; l->client != NULL && i < l->o.clients; i++) {
		chaapar_close(l->client[i].c);
		free(l->client[i].slot);
	}
	free(l->client);
}

/* ---- the loop ---- */

/* How many operations may have been issued by now. With --rate, what was missed is made up for. */
static uint64_t
allowed(const struct load *l, uint64_t now)
{
	uint64_t passed = now - l->start_ns, n;

	if (l->preloading || l->o.rate == 0)
		return l->o.ops;
	n = passed / 1000000000u * l->o.rate + passed % 1000000000u * l->o.rate / 1000000000u;
	return chp_min_u64(n, l->o.ops);
}

/* When --rate lets the next operation go, if not now. */
static uint64_t
next_ns(const struct load *l, uint64_t now)
{
	uint64_t n = l->issued + 1;

	if (!l->issuing || l->preloading || l->o.rate == 0 || l->issued < allowed(l, now))
		return CHP_NEVER;
	return l->start_ns + n / l->o.rate * 1000000000u +
	       (n % l->o.rate * 1000000000u + l->o.rate - 1) / l->o.rate;
}

/* Fill the client's idle slots, until so many operations were issued. */
static void
issue(struct load *l, struct load_client *client, uint64_t limit)
{
	while (client->idle != NULL && l->issuing) {
		struct load_slot *slot = client->idle;

		if (!l->preloading && l->issued >= limit)
			return;
		client->idle = slot->next;
		if (!l->preloading) {
			load_next(l, slot);
		} else if (!load_preload_next(l, slot)) {
			slot->next = client->idle;
			client->idle = slot;
			return;
		}
	}
}

/* Wait until a socket or a timer of any client wants something, at most until a time. */
static void
wait_any(struct load *l, struct pollfd *p, uint64_t until_ns)
{
	uint64_t now = load_now_ns(), ns = until_ns > now ? until_ns - now : 0;
	struct timespec t;

	for (uint32_t i = 0; i < l->n_clients; i++) {
		int64_t wait = chaapar_wait_ns(l->client[i].c);

		p[i] = (struct pollfd){ .fd = chaapar_fd(l->client[i].c), .events = POLLIN };
		if (wait >= 0 && (uint64_t)wait < ns)
			ns = (uint64_t)wait;
	}
	t = (struct timespec){ .tv_sec = (time_t)(ns / 1000000000u),
			       .tv_nsec = (long)(ns % 1000000000u) };
	(void)ppoll(p, l->n_clients, &t, NULL);
}

static uint64_t
in_flight(const struct load *l)
{
	uint64_t n = 0;

	for (uint32_t i = 0; i < l->n_clients; i++)
		n += chaapar_in_flight(l->client[i].c);
	return n;
}

static bool
is_over(const struct load *l, uint64_t now)
{
	if (stopped || !l->issuing)
		return true;
	if (l->preloading)
		return l->preload_next == l->o.keys + l->numeric_keys && in_flight(l) == 0;
	return now >= l->end_ns || l->issued >= l->o.ops;
}

/* One phase: until it is over, and then until the last answer. */
static void
run_phase(struct load *l, struct pollfd *p)
{
	uint64_t interval = (uint64_t)(l->o.report_interval_s * 1e9);
	uint64_t last = load_now_ns(), report = interval > 0 ? last + interval : CHP_NEVER, wake;
	uint32_t first = 0;

	l->start_ns = last;
	l->end_ns = l->o.duration_s > 0 ? last + (uint64_t)(l->o.duration_s * 1e9) : CHP_NEVER;
	for (;;) {
		uint64_t now = load_now_ns();

		if (is_over(l, now)) {
			l->issuing = false;
			if (in_flight(l) == 0)
				break;
		}
		for (uint32_t i = 0; i < l->n_clients; i++) {
			struct load_client *client = &l->client[(first + i) % l->n_clients];

			issue(l, client, allowed(l, now));
			chaapar_flush(client->c);
		}
		first = (first + 1) % l->n_clients; /* with --rate, whoever is first takes all */
		if (now >= report) {
			load_line(l, now, (double)(now - last) / 1e9);
			last = now;
			report = now + interval;
		}
		wake = chp_min_u64(report, l->issuing ? l->end_ns : CHP_NEVER);
		wait_any(l, p, chp_min_u64(wake, next_ns(l, now)));
		for (uint32_t i = 0; i < l->n_clients; i++)
			(void)chaapar_poll(l->client[i].c, 0);
	}
}

static int
run(struct load *l)
{
	struct pollfd *p = calloc(l->n_clients, sizeof(*p));

	if (p == NULL)
		return ctl_fail(l->ctl, CTL_ERROR, "out of memory");
	if (l->o.preload) {
		l->preloading = l->issuing = true;
		run_phase(l, p);
		l->preload_ns = load_now_ns() - l->start_ns;
	}
	l->preloading = false;
	if (!stopped && l->o.ops > 0 && l->preload_failed == 0) {
		l->issuing = true;
		run_phase(l, p);
		l->ran_ns = load_now_ns() - l->start_ns;
	}
	free(p);
	load_summary(l);
	if (l->preload_failed > 0)
		return ctl_fail(l->ctl, CTL_ERROR, "%llu keys could not be loaded",
				(unsigned long long)l->preload_failed);
	if (l->answered == 0)
		return ctl_fail(l->ctl, CTL_ERROR, "nothing was answered");
	return CTL_OK;
}

static int
open_file(struct load *l, const char *name, FILE **file)
{
	if (name == NULL)
		return CTL_OK;
	*file = fopen(name, "we");
	if (*file == NULL)
		return ctl_fail(l->ctl, CTL_ERROR, "%s: %s", name, strerror(errno));
	(void)setvbuf(*file, NULL, _IOFBF, HISTORY_BUFFER_BYTES);
	return CTL_OK;
}

static int
close_timeline(struct load *l, int code)
{
	if (l->timeline == NULL)
		return code;
	load_write_step(l);
	if (fclose(l->timeline) != 0)
		return ctl_fail(l->ctl, CTL_ERROR, "%s: could not be written completely", l->o.timeline);
	return code;
}

/* A history with a hole is worse than none: say so. */
static int
close_history(struct load *l, int code)
{
	if (l->history == NULL)
		return code;
	if (fclose(l->history) != 0)
		l->history_failed = true;
	if (l->history_failed)
		return ctl_fail(l->ctl, CTL_ERROR,
				"%s: the history could not be written completely", l->o.history);
	return code;
}

int
ctl_load(struct ctl *ctl, int argc, char **argv)
{
	static struct load l;
	struct sigaction action = { .sa_handler = on_signal };
	int code;

	l = (struct load){ .ctl = ctl };
	code = take_options(ctl, argc, argv, &l.o);
	if (code != CTL_OK)
		return code < 0 ? CTL_OK : code;
	l.numeric_keys = l.o.keys < 10 ? 1 : l.o.keys / 10;
	l.random.state = load_now_ns() ^ (uint64_t)getpid() << 40;
	load_zipf_init(&l.zipf, l.o.keys, l.o.theta);
	chp_histogram_init(&l.interval);
	chp_histogram_init(&l.total);
	for (uint32_t k = 0; k < LOAD_KINDS; k++)
		chp_histogram_init(&l.by_kind[k]);
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	code = open_file(&l, l.o.history, &l.history);
	if (code == CTL_OK)
		code = open_file(&l, l.o.timeline, &l.timeline);
	if (code == CTL_OK)
		code = open_all(&l);
	if (code == CTL_OK && stopped)
		code = CTL_ERROR;
	if (code == CTL_OK)
		code = run(&l);
	close_all(&l);
	return close_history(&l, close_timeline(&l, code));
}
