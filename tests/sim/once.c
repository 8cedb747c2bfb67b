/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What must hold of requests over all nodes (SAFETY 24, 25): one is executed with one version, and afterwards nobody
 * begins it with another. It is executed when a node validates a version, or answers so, whether anybody hears of it
 * or not. What was begun before, or in an earlier view, may still be on its way: it is overtaken, or nobody takes it.
 *
 * A history shows this only where the second execution changes what somebody reads. This looks at what shards send;
 * what a packet says of requests is the kind's to tell.
 */
#include "world.h"

#include "base/digest.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

void
sim_once_forget(struct sim_world *w)
{
	free(w->request);
	w->request = NULL;
	w->n_requests = w->cap_requests = 0;
}

/* The place of a request, perhaps an empty one; at least half of all are empty. */
static struct sim_request *
place_of(const struct sim_world *w, uint64_t session, uint64_t request)
{
	const uint64_t key[2] = { session, request };
	uint32_t i = (uint32_t)chp_hash64(key, sizeof(key), 0) & (w->cap_requests - 1);

	while (w->request[i].session != 0 && (w->request[i].session != session || w->request[i].request != request))
		i = (i + 1) & (w->cap_requests - 1);
	return &w->request[i];
}

static void
grow(struct sim_world *w)
{
	struct sim_request *old = w->request;
	const uint32_t n = w->cap_requests;

	w->cap_requests = n == 0 ? 1024 : 2 * n;
	w->request = calloc(w->cap_requests, sizeof(*w->request));
	CHP_ASSERT(w->request != NULL);
	for (uint32_t i = 0; i < n; i++)
		if (old[i].session != 0)
			*place_of(w, old[i].session, old[i].request) = old[i];
	free(old);
}

static struct sim_request *
request_of(struct sim_world *w, uint64_t session, uint64_t request)
{
	struct sim_request *r;

	if (2 * w->n_requests >= w->cap_requests)
		grow(w);
	r = place_of(w, session, request);
	if (r->session == 0) {
		*r = (struct sim_request){ .session = session, .request = request };
		w->n_requests++;
	}
	return r;
}

static void
twice(struct sim_world *w, uint32_t n, const char *does, const struct sim_request *r, uint64_t version)
{
	sim_fail(w, "node %u %s request %" PRIu64 " of session %" PRIx64 " as version %" PRIu64
		 ".%u; it was executed as %" PRIu64 ".%u", n, does, r->request, r->session,
		 chp_version_counter(version), (uint16_t)version,
		 chp_version_counter(r->version), (uint16_t)r->version);
}

void
sim_once_executed(struct sim_world *w, uint32_t n, uint64_t epoch, uint64_t session, uint64_t request,
		  uint64_t version)
{
	struct sim_request *r;

	if (session == 0)
		return;
	r = request_of(w, session, request);
	if (r->version != 0 && r->version != version)
		twice(w, n, "executes", r, version);
	if (r->version == 0) {
		sim_trace(w, "node %u executes request %" PRIu64 " of session %" PRIx64 " as %" PRIu64 ".%u", n,
			  request, session, chp_version_counter(version), (uint16_t)version);
		r->epoch = epoch;
	}
	r->version = version;
}

/* A version that a request is begun with: for the first time, or sent again. */
void
sim_once_begun(struct sim_world *w, uint32_t n, uint64_t epoch, uint64_t session, uint64_t request,
	       uint64_t version)
{
	struct sim_request *r = request_of(w, session, request);

	if (r->version == version)
		return;
	for (uint32_t i = 0; i < r->n_tried; i++)
		if (r->tried[i] == version)
			return;
	if (r->n_tried == SIM_TRIES_MAX)
		return;
	r->tried[r->n_tried++] = version;
	sim_trace(w, "node %u begins request %" PRIu64 " of session %" PRIx64 " as %" PRIu64 ".%u", n, request, session,
		  chp_version_counter(version), (uint16_t)version);
	if (r->version != 0 && epoch >= r->epoch)
		twice(w, n, "begins", r, version);
}

void
sim_once_reply(struct sim_world *w, uint32_t n, const uint8_t *data, uint32_t len)
{
	const struct chp_reply_header *h = (const void *)data;
	uint32_t offset = sizeof(*h);
	const struct chp_reply_message *r;

	while ((r = chp_reply_next(data, len, &offset)) != NULL)
		if (r->status == CHP_STATUS_OK && r->opcode != CHP_OPCODE_GET && r->opcode != CHP_OPCODE_PING)
			sim_once_executed(w, n, h->epoch, h->session, r->request, r->version);
}
