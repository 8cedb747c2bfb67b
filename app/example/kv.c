/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * kv.c - a thousand counters, started and incremented with many requests in flight, then read.
 *
 *     cc kv.c $(pkg-config --cflags --libs chaapar) -o kv && ./kv 10.99.0.10:7170
 */
#include <chaapar.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

static unsigned failed;

/* Called from chaapar_poll, once for each request. */
static void
on_answer(struct chaapar *c, void *arg, const struct chaapar_result *r)
{
	(void)c;
	if (r->status == CHAAPAR_OK || r->status == CHAAPAR_EXISTS)
		return;
	fprintf(stderr, "%s: %s\n", (const char *)arg, chaapar_strerror((int)r->status));
	failed++;
}

/* Submit one. -EAGAIN means: as many in flight as the handle takes. Polling makes room. */
static void
submit(struct chaapar *c, const char *key, bool start)
{
	while ((start ? chaapar_add(c, key, strlen(key), "0", 1, on_answer, "add") :
			chaapar_incr(c, key, strlen(key), 1, on_answer, "incr")) == -EAGAIN)
		chaapar_poll(c, -1);
}

int
main(int argc, char **argv)
{
	int err;
	struct chaapar *c = chaapar_open(argc > 1 ? argv[1] : "10.99.0.10", NULL, &err);
	struct chaapar_result r;
	char key[32];

	for (int i = 0; c != NULL && i < 2000; i++) {
		snprintf(key, sizeof(key), "counter-%d", i % 1000);
		submit(c, key, i < 1000);
		/* Requests in flight have no order: all must have started before any counts. */
		while ((i == 999 || i == 1999) && chaapar_in_flight(c) > 0)
			chaapar_poll(c, -1);
	}
	for (int i = 0; c != NULL && i < 1000; i += 100) {
		snprintf(key, sizeof(key), "counter-%d", i);
		if (chaapar_get_sync(c, key, strlen(key), &r) == CHAAPAR_OK)
			printf("%s = %.*s\n", key, (int)r.value_len, (const char *)r.value);
	}
	if (c == NULL)
		fprintf(stderr, "cannot open: %s\n", chaapar_strerror(err));
	chaapar_close(c);
	return c == NULL || failed > 0;
}
