/* SPDX-License-Identifier: BSD-3-Clause */
#include "scene_host.h"

#include "host.h"

#include <inttypes.h>
#include <string.h>

/* ------------------------------------------------------------------ the store */

static void
write_items(struct sim_table *t, const struct chp_store_request *r)
{
	for (uint32_t i = 0; i < r->n_items; i++) {
		struct sim_stored s;

		sim_stored_of(&s, &r->item[i]);
		sim_table_put(t, &s);
	}
	sim_table_batch(t, r->life, r->seq);
}

static void
serve(struct scene_host *h, struct chp_store_request *r)
{
	struct sim_table *t = &h->store.durable;

	switch (r->type) {
	case CHP_STORE_BEGIN:
		sim_table_begin(t, r->life);
		break;
	case CHP_STORE_WRITE:
		write_items(t, r);
		break;
	case CHP_STORE_RECORD:
		sim_table_record(t, r->epoch);
		break;
	case CHP_STORE_READ:
		for (uint32_t i = 0; i < r->n_reads; i++) {
			sim_table_read(t, &r->read[i]);
			if (h->fails)
				r->read[i].found = CHP_STORE_FAILED;
		}
		break;
	default:
		sim_table_scan(t, r->scan);
	}
	r->record = sim_table_summary(t);
}

/* ------------------------------------------------------------------ the process */

void
scene_host_start(struct scene_host *h, const struct chp_shard_config *s, uint32_t n)
{
	const struct chp_dsi_config c = { .memory = s->memory,
					  .cluster_hash = s->cluster_hash,
					  .node = n,
					  .shard = s->shard,
					  .shards = s->shards,
					  .hash_seed = s->hash_seed,
					  .key_bytes_max = s->key_bytes_max,
					  .value_bytes_max = s->value_bytes_max,
					  .payload_bytes_max = s->payload_bytes_max,
					  .incarnation = 0x100000 + 0x1000 * ++h->starts + n,
					  .put_bytes = 65536,
					  .loads = 64,
					  .scan_bytes = 4096,
					  .window = s->link_window,
					  .queue = 2 * CHP_LINK_WINDOW_MAX,
					  .rto_ns_min = s->rto_ns_min,
					  .rto_ns_max = s->rto_ns_max,
					  .ack_delay_ns = s->ack_delay_ns };
	int err = 0;

	h->dsi = chp_dsi_create(&c, &err);
	CHP_ASSERT(h->dsi != NULL);
	h->exists = h->alive = h->is_new = true;
	h->n_open = 0;
	h->wake_ns = 0;
}

void
scene_host_crash(struct scene_host *h)
{
	if (!h->alive)
		return;
	chp_dsi_destroy(h->dsi);
	h->dsi = NULL;
	h->alive = false;
	h->n_open = 0;
	h->wake_ns = CHP_NEVER;
}

void
scene_host_run(struct scene_host *h, uint64_t now_ns, const struct chp_dsi_packet *packet, uint32_t n,
	       struct chp_dsi_effects *fx)
{
	const struct chp_store_record record = sim_table_summary(&h->store.durable);
	const struct chp_store_info info = { .flags = CHP_STORE_SCANS, .name = "a store of a scenario" };
	struct chp_dsi_events in = { .packet = packet, .n_packets = n };

	if (h->is_new) {
		in.info = &info;
		in.record = &record;
		h->is_new = false;
	}
	if (!h->holds) {
		for (uint32_t i = 0; i < h->n_open; i++)
			serve(h, h->open[i]);
		in.done = h->open;
		in.n_done = h->n_open;
		h->n_open = 0;
	}
	chp_dsi_run(h->dsi, now_ns, &in, fx);
	chp_dsi_check(h->dsi);
	memcpy(h->open + h->n_open, fx->request, fx->n_requests * sizeof(fx->request[0]));
	h->n_open += fx->n_requests;
	h->wake_ns = !h->holds && h->n_open > 0 ? 0 : fx->wake_ns;
}

/* ------------------------------------------------------------------ in words */

static void
print_value(FILE *out, const uint8_t *value, uint32_t len, bool deleted)
{
	if (deleted) {
		fputs(" deleted", out);
		return;
	}
	fputs(" \"", out);
	sim_print_bytes(out, value, len);
	fputc('"', out);
}

void
scene_host_print_store(FILE *out, const struct scene_host *h, const struct sim_kind *kind, const char *key)
{
	const struct sim_table *t = &h->store.durable;

	fprintf(out, "life %" PRIu64 ", batch %" PRIu64 ", epoch %" PRIu64, t->life, t->batch, t->epoch);
	for (uint32_t i = 0; i < t->n; i++) {
		const struct sim_stored *s = &t->item[i];

		if (key != NULL && (strlen(key) != s->key_len || memcmp(key, s->key, s->key_len) != 0))
			continue;
		fputs("; ", out);
		sim_print_bytes(out, s->key, s->key_len);
		sim_print_version(out, kind, " ", s->version);
		print_value(out, s->value, s->value_len, (s->flags & CHP_HOST_TOMBSTONE) != 0);
		if (s->life != t->life)
			fprintf(out, " of life %" PRIu64, s->life);
	}
	fputc('\n', out);
}

static void
print_item(FILE *out, const struct sim_kind *kind, const struct chp_host_item *m)
{
	fputs(m->message.type == CHP_HOST_PUT ? "PUT k=" : "ITEM k=", out);
	sim_print_bytes(out, chp_host_item_key(m), m->key_len);
	sim_print_version(out, kind, " ", m->version);
	print_value(out, chp_host_item_value(m), m->value_len, (m->item_flags & CHP_HOST_TOMBSTONE) != 0);
	fputs((m->item_flags & CHP_HOST_OLD) != 0 ? " old" : "", out);
}

static void
print_loaded(FILE *out, const struct sim_kind *kind, const struct chp_host_loaded *m)
{
	switch (m->status) {
	case CHP_LOAD_FOUND:
	case CHP_LOAD_TOMBSTONE:
		sim_print_version(out, kind, "LOADED ", m->version);
		print_value(out, (const uint8_t *)(m + 1), m->value_len, m->status == CHP_LOAD_TOMBSTONE);
		break;
	case CHP_LOAD_ABSENT:
		fputs("LOADED nothing", out);
		break;
	default:
		fputs("LOADED failed", out);
	}
	fputs((m->item_flags & CHP_HOST_OLD) != 0 ? " old" : "", out);
}

static void
print_scan(FILE *out, const struct chp_host_scan *m)
{
	fprintf(out, "SCAN %u%s%s", m->message.op, (m->scan_flags & CHP_HOST_SCAN_START) != 0 ? " from the start" : "",
		(m->scan_flags & CHP_HOST_SCAN_OLD) != 0 ? ", old" : "");
}

static void
print_scanned(FILE *out, const struct chp_host_scanned *m)
{
	fprintf(out, "SCANNED %u: %u items%s%s", m->message.op, m->items,
		(m->scanned_flags & CHP_HOST_SCAN_END) != 0 ? ", end" : "",
		(m->scanned_flags & CHP_HOST_SCAN_FAILED) != 0 ? ", failed" : "");
}

void
scene_host_print(FILE *out, const struct sim_kind *kind, const struct chp_message *m)
{
	switch (m->type) {
	case CHP_HOST_BEGIN:
	case CHP_HOST_BEGUN:
		fprintf(out, "%s life %" PRIu64, m->type == CHP_HOST_BEGIN ? "BEGIN" : "BEGUN",
			((const struct chp_host_life *)(const void *)m)->life);
		break;
	case CHP_HOST_PUT:
	case CHP_HOST_ITEM:
		print_item(out, kind, (const void *)m);
		break;
	case CHP_HOST_FLUSH:
	case CHP_HOST_DURABLE:
		fprintf(out, "%s batch %" PRIu64, m->type == CHP_HOST_FLUSH ? "FLUSH" : "DURABLE",
			((const struct chp_host_batch *)(const void *)m)->seq);
		break;
	case CHP_HOST_LOAD:
		fputs("LOAD k=", out);
		sim_print_bytes(out, (const uint8_t *)((const struct chp_host_load *)(const void *)m + 1),
				((const struct chp_host_load *)(const void *)m)->key_len);
		break;
	case CHP_HOST_LOADED:
		print_loaded(out, kind, (const void *)m);
		break;
	case CHP_HOST_SCAN:
		print_scan(out, (const void *)m);
		break;
	case CHP_HOST_SCANNED:
		print_scanned(out, (const void *)m);
		break;
	case CHP_HOST_RECORD:
	case CHP_HOST_RECORDED:
		fprintf(out, "%s epoch %" PRIu64, m->type == CHP_HOST_RECORD ? "RECORD" : "RECORDED",
			((const struct chp_host_record *)(const void *)m)->epoch);
		break;
	case CHP_HOST_STATE:
		fprintf(out, "STATE %u", ((const struct chp_host_state *)(const void *)m)->state);
		break;
	default:
		fprintf(out, "message 0x%02x", m->type);
	}
}

void
scene_host_print_hello(FILE *out, const struct chp_host_hello *m)
{
	if (m->type == CHP_HOST_HELLO)
		fputs("HELLO", out);
	else if (m->type == CHP_HOST_WELCOME)
		fprintf(out, "WELCOME life %" PRIu64 " batch %" PRIu64 " epoch %" PRIu64 " newest %" PRIu64, m->life,
			m->batch, m->epoch, m->newest);
	else
		fprintf(out, "REFUSED: %s", chp_host_refusal_name((enum chp_host_refusal)m->refusal));
}

/* Every life and every view begins with these. */
bool
scene_host_is_dull(const struct chp_message *m)
{
	return m->type == CHP_HOST_BEGIN || m->type == CHP_HOST_BEGUN || m->type == CHP_HOST_RECORD ||
	       m->type == CHP_HOST_RECORDED || m->type == CHP_HOST_STATE;
}
