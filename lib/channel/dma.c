/* SPDX-License-Identifier: BSD-3-Clause */
#include "channel/dma.h"

#include "base/assert.h"
#include "base/bytes.h"

#include <rte_cycles.h>
#include <rte_dmadev.h>
#include <rte_malloc.h>
#include <rte_pause.h>

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* A device that takes longer for a burst is broken: the CPU needs a few microseconds. */
#define WAIT_HZ 10u
#define DESCRIPTORS 256u

struct copy {
	uint8_t *to;
	const uint8_t *from;
	uint32_t len;
};

struct chp_channel_dma {
	int16_t id;
	bool started;
	uint32_t n;       /* copies of this batch */
	uint32_t n_given; /* the first of them, to the device */
	struct copy copy[CHP_CHANNEL_BURST];
};

__attribute__((format(printf, 2, 3))) static void
fail(struct chp_channel_error *e, const char *format, ...)
{
	va_list args;

	e->is_usage = false;
	va_start(args, format);
	(void)vsnprintf(e->text, sizeof(e->text), format, args);
	va_end(args);
}

static int
start_device(struct chp_channel_dma *d, const struct rte_dma_info *info)
{
	const struct rte_dma_conf conf = { .nb_vchans = 1 };
	const uint32_t most = chp_min_u32(DESCRIPTORS, info->max_desc);
	const struct rte_dma_vchan_conf vchan = {
		.direction = RTE_DMA_DIR_MEM_TO_MEM,
		.nb_desc = (uint16_t)(most > info->min_desc ? most : info->min_desc),
	};
	int rc = rte_dma_configure(d->id, &conf);

	if (rc == 0)
		rc = rte_dma_vchan_setup(d->id, 0, &vchan);
	if (rc == 0)
		rc = rte_dma_start(d->id);
	d->started = rc == 0;
	return rc;
}

struct chp_channel_dma *
chp_channel_dma_open(const char *name, struct chp_channel_error *error)
{
	const uint64_t need = RTE_DMA_CAPA_MEM_TO_MEM | RTE_DMA_CAPA_OPS_COPY;
	struct chp_channel_dma *d = rte_zmalloc(NULL, sizeof(*d), CHP_CACHE_LINE);
	int id = rte_dma_get_dev_id_by_name(name), rc;
	struct rte_dma_info info;

	if (d == NULL) {
		fail(error, "no memory for the DMA device \"%s\": give EAL more (-m)", name);
		return NULL;
	}
	d->id = (int16_t)id;
	if (id < 0)
		fail(error,
		     "the DMA device \"%s\" of the channel does not exist: add --vdev=%s or -a <PCI address> before the --",
		     name, name);
	else if (rte_dma_info_get(d->id, &info) != 0 || (info.dev_capa & need) != need)
		fail(error, "the DMA device \"%s\" of the channel cannot copy from memory to memory", name);
	else if ((info.dev_capa & RTE_DMA_CAPA_SVA) == 0)
		fail(error,
		     "the DMA device \"%s\" of the channel shares no virtual addresses: set dma to \"none\"", name);
	else if ((rc = start_device(d, &info)) != 0)
		fail(error, "the DMA device \"%s\" of the channel does not start (%s)", name, strerror(-rc));
	else
		return d;
	chp_channel_dma_close(d);
	return NULL;
}

void
chp_channel_dma_close(struct chp_channel_dma *d)
{
	if (d != NULL && d->started)
		(void)rte_dma_stop(d->id);
	rte_free(d);
}

void
chp_channel_dma_add(struct chp_channel_dma *d, void *to, const void *from, uint32_t len)
{
	CHP_ASSERT_OP(d->n, <, CHP_CHANNEL_BURST);
	d->copy[d->n] = (struct copy){ .to = to, .from = from, .len = len };
	/* In order: once the device has refused one, the CPU makes the others. */
	if (d->started && d->n_given == d->n &&
	    rte_dma_copy(d->id, 0, (rte_iova_t)(uintptr_t)from, (rte_iova_t)(uintptr_t)to, len, 0) >= 0)
		d->n_given++;
	d->n++;
}

void
chp_channel_dma_start(struct chp_channel_dma *d)
{
	if (d->n_given > 0)
		(void)rte_dma_submit(d->id, 0);
}

static void
by_cpu(const struct copy *c)
{
	memcpy(c->to, c->from, c->len);
}

uint32_t
chp_channel_dma_finish(struct chp_channel_dma *d)
{
	uint64_t until = rte_rdtsc() + rte_get_tsc_hz() / WAIT_HZ;
	enum rte_dma_status_code status[CHP_CHANNEL_BURST];
	uint32_t made = 0, at = 0;
	uint16_t last;

	for (uint32_t i = d->n_given; i < d->n; i++)
		by_cpu(&d->copy[i]);
	while (at < d->n_given) {
		uint16_t n = rte_dma_completed_status(d->id, 0, (uint16_t)(d->n_given - at), &last, status);

		for (uint32_t i = 0; i < n; i++) {
			if (status[i] == RTE_DMA_STATUS_SUCCESSFUL)
				made++;
			else
				by_cpu(&d->copy[at + i]);
		}
		at += n;
		if (n > 0)
			continue;
		if (rte_rdtsc() > until)
			break;
		rte_pause();
	}
	if (at < d->n_given) { /* stopped, it touches nothing any more */
		(void)rte_dma_stop(d->id);
		d->started = false;
		for (; at < d->n_given; at++)
			by_cpu(&d->copy[at]);
	}
	d->n = d->n_given = 0;
	return made;
}
