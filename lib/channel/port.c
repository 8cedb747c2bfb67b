/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * port.c - a channel over an Ethernet device of DPDK: one frame a packet, bursts of frames.
 *
 * The device connects the two ends and nobody else: vhost and virtio-user between processes or with a virtual machine,
 * a scalable function towards a function of the host. Its link state says whether the other end is there.
 */
#include "base/assert.h"
#include "channel/device.h"
#include "channel/dma.h"
#include "channel/frame.h"
#include "channel/transports.h"

#include <rte_cycles.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_malloc.h>
#include <rte_mbuf.h>

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define RING_DEFAULT 1024u
/* Beyond the packet in an mbuf: our header, frame check sequence, VLAN tags that a device may leave. */
#define FRAME_OVERHEAD 64u
/* The least room that many drivers accept. */
#define ROOM_MIN 2048u
/* mbufs that an lcore keeps in the pool's cache: two bursts. */
#define POOL_CACHE (2 * CHP_CHANNEL_BURST)
/* How often a device is asked for its link's state. */
#define LINK_HZ 1000u
/* Who was silent for so long may have come back with another MAC address: everybody is sent to. */
#define SILENT_S 1u
/* Bursts from this size on are copied by the DMA device, if there is one: smaller ones take longer to ask for. */
#define DMA_BYTES_MIN 8192u

struct port {
	struct chp_channel ch;
	uint16_t id;
	bool started;
	bool broken;
	bool up;
	bool knows_peer;
	uint8_t mac[6], peer[6];
	uint32_t n_lent;
	uint64_t link_tsc;  /* when to look at the link again */
	uint64_t heard_tsc; /* when a frame of the other end came */
	uint64_t link_ticks, silent_ticks;
	struct rte_mempool *pool;
	struct chp_channel_dma *dma; /* NULL: the CPU copies */
	char text[CHP_CHANNEL_TEXT_BYTES];
	char name[RTE_ETH_NAME_MAX_LEN];
};

static struct port *
port_of(struct chp_channel *ch)
{
	CHP_ASSERT(ch->ops == &chp_channel_port);
	return (struct port *)(void *)ch;
}

/* ------------------------------------------------------------------ opening */

__attribute__((format(printf, 3, 4))) static int
fail(struct chp_channel_error *e, bool is_usage, const char *format, ...)
{
	va_list args;

	e->is_usage = is_usage;
	va_start(args, format);
	(void)vsnprintf(e->text, sizeof(e->text), format, args);
	va_end(args);
	return -1;
}

/* The names of the devices that exist, for who misspelt one. */
static void
list_devices(char *text, size_t size)
{
	size_t used = 0;

	text[0] = '\0';
	for (uint16_t id = 0; id < RTE_MAX_ETHPORTS && used < size; id++) {
		char name[RTE_ETH_NAME_MAX_LEN];
		int n;

		if (!rte_eth_dev_is_valid_port(id) || rte_eth_dev_get_name_by_port(id, name) != 0)
			continue;
		n = snprintf(text + used, size - used, "%s%s", used > 0 ? ", " : "", name);
		used += (size_t)n;
	}
}

static int
find_device(struct port *p, const char *name, struct chp_channel_error *error)
{
	char list[128];

	(void)snprintf(p->name, sizeof(p->name), "%s", name);
	if (rte_eth_dev_get_port_by_name(name, &p->id) == 0)
		return 0;
	list_devices(list, sizeof(list));
	if (list[0] == '\0')
		return fail(error, false,
			    "the port \"%s\" of the channel does not exist, nor does any other: add --vdev=%s,... or "
			    "-a <PCI address> before the --", name, name);
	return fail(error, false, "the port \"%s\" of the channel does not exist; the ports that do: %s", name, list);
}

static int
make_pool(struct port *p, const struct chp_channel_config *c, uint32_t ring, struct chp_channel_error *error)
{
	uint32_t room = chp_align_u32(c->payload_bytes_max + FRAME_OVERHEAD, CHP_CACHE_LINE);
	/* Both rings full, what the owner holds, and what is under way; the cache of the thread that uses us. */
	uint32_t n = 2 * ring + CHP_CHANNEL_LENT_MAX + 2 * CHP_CHANNEL_BURST + 2 * POOL_CACHE;
	char name[RTE_MEMPOOL_NAMESIZE];

	(void)snprintf(name, sizeof(name), "%s.channel", c->name);
	p->pool = rte_pktmbuf_pool_create(name, n, POOL_CACHE, 0,
					  (uint16_t)(RTE_PKTMBUF_HEADROOM + (room > ROOM_MIN ? room : ROOM_MIN)),
					  rte_eth_dev_socket_id(p->id));
	if (p->pool != NULL)
		return 0;
	return fail(error, false, "no memory for the %u mbufs of the channel (%s): give EAL more memory (-m)", n,
		    rte_strerror(rte_errno));
}

/* Some drivers cannot set an MTU; then what the device has must be enough. */
static int
set_mtu(struct port *p, const struct rte_eth_dev_info *info, uint16_t mtu, uint16_t before,
	struct chp_channel_error *error)
{
	int rc = rte_eth_dev_set_mtu(p->id, mtu);

	if (rc == 0 || before >= mtu || (rc == -ENOTSUP && info->max_mtu == UINT16_MAX))
		return 0;
	return fail(error, false,
		    "the port \"%s\" (%s) of the channel does not take the cluster's MTU of %u (%s), it has %u: set it on "
		    "the device or lower mtu in the cluster file",
		    p->name, info->driver_name, mtu, rte_strerror(-rc), before);
}

static int
start_device(struct port *p, const struct rte_eth_dev_info *info, uint32_t ring, struct chp_channel_error *error)
{
	uint16_t mtu = (uint16_t)(p->ch.payload_bytes_max + CHP_IP_UDP_BYTES), before = 0;
	struct rte_eth_conf conf = { .rxmode = { .mtu = mtu } };
	uint16_t rx = (uint16_t)ring, tx = (uint16_t)ring;
	unsigned int socket = (unsigned int)rte_eth_dev_socket_id(p->id);
	int rc;

	/* Without this a front end of vhost-user never sees that its back end came back. */
	if ((*info->dev_flags & RTE_ETH_DEV_INTR_LSC) != 0)
		conf.intr_conf.lsc = 1;
	(void)rte_eth_dev_get_mtu(p->id, &before);
	rc = rte_eth_dev_configure(p->id, 1, 1, &conf);
	if (rc != 0)
		return fail(error, false, "the port \"%s\" (%s) of the channel refuses a queue each way at MTU %u (%s)",
			    p->name, info->driver_name, mtu, rte_strerror(-rc));
	if (set_mtu(p, info, mtu, before, error) != 0)
		return -1;
	rc = rte_eth_dev_adjust_nb_rx_tx_desc(p->id, &rx, &tx);
	if (rc == 0)
		rc = rte_eth_rx_queue_setup(p->id, 0, rx, socket, NULL, p->pool);
	if (rc == 0)
		rc = rte_eth_tx_queue_setup(p->id, 0, tx, socket, NULL);
	if (rc == 0)
		rc = rte_eth_dev_start(p->id);
	if (rc != 0)
		return fail(error, false,
			    "the port \"%s\" (%s) of the channel does not start with %u and %u descriptors (%s)",
			    p->name, info->driver_name, rx, tx, rte_strerror(-rc));
	p->started = true;
	(void)rte_eth_promiscuous_enable(p->id); /* nobody else is there; a device that cannot takes what is for it */
	return 0;
}

static void
find_mac(struct port *p)
{
	struct rte_ether_addr mac;

	if (rte_eth_macaddr_get(p->id, &mac) == 0 && !rte_is_zero_ether_addr(&mac)) {
		memcpy(p->mac, mac.addr_bytes, sizeof(p->mac));
		return;
	}
	p->mac[0] = 2; /* locally administered */
	p->mac[5] = p->ch.is_host ? 2 : 1;
}

static void
port_close(struct chp_channel *ch)
{
	struct port *p = port_of(ch);

	if (p->started)
		chp_device_stop(p->id);
	/* Its queues hold mbufs until it is closed, and rte_eal_cleanup would do that when their pool is gone. */
	if (p->pool != NULL)
		(void)rte_eth_dev_close(p->id);
	chp_channel_dma_close(p->dma);
	rte_mempool_free(p->pool);
	rte_free(p);
}

/*
 * virtio-user writes to its back end without MSG_NOSIGNAL, from this thread and DPDK's interrupt thread, as long as it
 * is open and when it is closed: a back end that died must not end this process, too. Who has a handler keeps it.
 */
static void
ignore_sigpipe(void)
{
	struct sigaction now;

	if (sigaction(SIGPIPE, NULL, &now) == 0 && (now.sa_flags & SA_SIGINFO) == 0 && now.sa_handler == SIG_DFL)
		(void)signal(SIGPIPE, SIG_IGN);
}

static struct chp_channel *
port_open(const struct chp_channel_config *config, struct chp_channel_error *error)
{
	uint32_t ring = config->ring != 0 ? config->ring : RING_DEFAULT;
	struct port *p = rte_zmalloc(NULL, sizeof(*p), CHP_CACHE_LINE);
	struct rte_eth_dev_info info;

	if (p == NULL) {
		(void)fail(error, false, "no memory for the channel: give EAL more (-m)");
		return NULL;
	}
	CHP_ASSERT(config->payload_bytes_max >= CHP_PAYLOAD_BYTES_MIN &&
		   config->payload_bytes_max <= CHP_PAYLOAD_BYTES_MAX);
	ignore_sigpipe();
	p->ch.ops = &chp_channel_port;
	p->ch.payload_bytes_max = config->payload_bytes_max;
	p->ch.is_host = config->is_host;
	p->link_ticks = rte_get_tsc_hz() / LINK_HZ;
	p->silent_ticks = rte_get_tsc_hz() * SILENT_S;
	if (find_device(p, config->port, error) != 0)
		goto fail;
	if (rte_eth_dev_info_get(p->id, &info) != 0) {
		(void)fail(error, false, "the port \"%s\" of the channel cannot be asked what it is", p->name);
		goto fail;
	}
	if (config->dma != NULL && (p->dma = chp_channel_dma_open(config->dma, error)) == NULL)
		goto fail;
	if (make_pool(p, config, ring, error) != 0 || start_device(p, &info, ring, error) != 0)
		goto fail;
	find_mac(p);
	return &p->ch;

fail:
	port_close(&p->ch);
	return NULL;
}

/* ------------------------------------------------------------------ the link */

/* Now and then: whether the other end is there, and where. */
static void
look(struct port *p, uint64_t now_tsc)
{
	struct rte_eth_link link = { 0 };
	bool up;
	int rc;

	if (now_tsc - p->heard_tsc > p->silent_ticks)
		p->knows_peer = false;
	if (now_tsc < p->link_tsc)
		return;
	p->link_tsc = now_tsc + p->link_ticks;
	rc = rte_eth_link_get_nowait(p->id, &link);
	p->broken = rc == -ENODEV || rc == -EIO;
	up = rc == 0 && link.link_status == RTE_ETH_LINK_UP;
	if (up == p->up)
		return;
	p->up = up;
	p->knows_peer = false;
	chp_channel_count(&p->ch, up ? CHP_CHANNEL_ups : CHP_CHANNEL_downs, 1);
}

static enum chp_channel_state
port_state(struct chp_channel *ch, const char **text)
{
	struct port *p = port_of(ch);
	const char *what;

	look(p, rte_rdtsc());
	what = p->broken ? "the device is gone" : p->up ? "link up" : "link down: the other end is not there";
	if (text != NULL) {
		(void)snprintf(p->text, sizeof(p->text), "port %s: %s", p->name, what);
		*text = p->text;
	}
	return p->broken ? CHP_CHANNEL_BROKEN : p->up ? CHP_CHANNEL_UP : CHP_CHANNEL_DOWN;
}

/* ------------------------------------------------------------------ packets */

/* Up to n mbufs: all at once, or as many as there are. */
static uint32_t
take_mbufs(struct port *p, struct rte_mbuf **m, uint32_t n)
{
	uint32_t got = 0;

	if (rte_pktmbuf_alloc_bulk(p->pool, m, n) == 0)
		return n;
	while (got < n && (m[got] = rte_pktmbuf_alloc(p->pool)) != NULL)
		got++;
	chp_channel_count(&p->ch, CHP_CHANNEL_tx_no_buffer, n - got);
	return got;
}

/* Begin to copy packets into mbufs, behind where the headers will be. Returns whether the DMA device does it. */
static bool
copy_packets(struct port *p, struct rte_mbuf *const *m, const struct chp_channel_packet *packets, uint32_t n)
{
	uint64_t bytes = 0;
	bool by_dma;

	for (uint32_t i = 0; i < n; i++)
		bytes += packets[i].len;
	by_dma = p->dma != NULL && bytes >= DMA_BYTES_MIN;
	for (uint32_t i = 0; i < n; i++) {
		uint8_t *to = rte_pktmbuf_mtod_offset(m[i], uint8_t *, CHP_CHANNEL_FRAME_BYTES);

		CHP_ASSERT(packets[i].len > 0 && packets[i].len <= p->ch.payload_bytes_max);
		if (by_dma)
			chp_channel_dma_add(p->dma, to, packets[i].data, packets[i].len);
		else
			memcpy(to, packets[i].data, packets[i].len);
	}
	if (by_dma)
		chp_channel_dma_start(p->dma);
	return by_dma;
}

/* One burst; returns how many the device took. */
static uint32_t
send_burst(struct port *p, const struct chp_channel_packet *packets, uint32_t n)
{
	struct rte_mbuf *m[CHP_CHANNEL_BURST];
	uint64_t bytes = 0;
	uint32_t sent;
	bool by_dma;

	n = take_mbufs(p, m, n);
	by_dma = copy_packets(p, m, packets, n);
	for (uint32_t i = 0; i < n; i++) {
		void *frame = rte_pktmbuf_mtod(m[i], void *);

		m[i]->data_len = (uint16_t)chp_channel_frame_build(frame, packets[i].len, p->ch.is_host, p->mac,
								   p->knows_peer ? p->peer : NULL);
		m[i]->pkt_len = m[i]->data_len;
	}
	if (by_dma)
		chp_channel_count(&p->ch, CHP_CHANNEL_dma_copies, chp_channel_dma_finish(p->dma));
	sent = n > 0 ? rte_eth_tx_burst(p->id, 0, m, (uint16_t)n) : 0;
	for (uint32_t i = 0; i < sent; i++)
		bytes += packets[i].len;
	if (sent < n)
		rte_pktmbuf_free_bulk(&m[sent], n - sent);
	chp_channel_count(&p->ch, CHP_CHANNEL_tx_packets, sent);
	chp_channel_count(&p->ch, CHP_CHANNEL_tx_bytes, bytes);
	return sent;
}

static uint32_t
port_send(struct chp_channel *ch, const struct chp_channel_packet *packets, uint32_t n)
{
	struct port *p = port_of(ch);
	uint32_t sent = 0, want, got;

	look(p, rte_rdtsc());
	if (!p->up) {
		chp_channel_count(ch, CHP_CHANNEL_drop_tx_down, n);
		return n;
	}
	do {
		want = chp_min_u32(n - sent, CHP_CHANNEL_BURST);
		got = send_burst(p, packets + sent, want);
		sent += got;
	} while (got == want && sent < n);
	chp_channel_count(ch, CHP_CHANNEL_tx_bursts, sent > 0 ? 1 : 0);
	chp_channel_count(ch, CHP_CHANNEL_tx_full, sent < n ? 1 : 0);
	return sent;
}

/* Whether a frame is a packet for us; otherwise it is counted. */
static bool
accept_frame(struct port *p, struct rte_mbuf *m, struct chp_channel_packet *packet)
{
	const struct chp_channel_frame *f = rte_pktmbuf_mtod(m, const struct chp_channel_frame *);
	enum chp_channel_counter why;

	if (m->nb_segs != 1)
		why = CHP_CHANNEL_drop_rx_segments;
	else
		why = chp_channel_frame_check(f, m->data_len, p->ch.is_host, p->ch.payload_bytes_max, &packet->len);
	if (why != CHP_CHANNEL_COUNTER_COUNT) {
		chp_channel_count(&p->ch, why, 1);
		return false;
	}
	memcpy(p->peer, f->from, sizeof(p->peer));
	packet->data = rte_pktmbuf_mtod_offset(m, uint8_t *, CHP_CHANNEL_FRAME_BYTES);
	packet->opaque = m;
	chp_channel_count(&p->ch, CHP_CHANNEL_rx_bytes, packet->len);
	return true;
}

static uint32_t
port_receive(struct chp_channel *ch, struct chp_channel_packet *packets, uint32_t n)
{
	struct port *p = port_of(ch);
	struct rte_mbuf *m[CHP_CHANNEL_BURST];
	uint64_t now_tsc = rte_rdtsc();
	uint32_t got, taken = 0;

	look(p, now_tsc);
	n = chp_min_u32(chp_min_u32(n, CHP_CHANNEL_BURST), CHP_CHANNEL_LENT_MAX - p->n_lent);
	got = n > 0 ? rte_eth_rx_burst(p->id, 0, m, (uint16_t)n) : 0;
	if (got == 0)
		return 0;
	for (uint32_t i = 0; i < got; i++) {
		if (accept_frame(p, m[i], &packets[taken]))
			taken++;
		else
			rte_pktmbuf_free(m[i]);
	}
	if (taken > 0) {
		p->heard_tsc = now_tsc;
		p->knows_peer = true;
	}
	p->n_lent += taken;
	chp_channel_count(ch, CHP_CHANNEL_rx_packets, taken);
	chp_channel_count(ch, CHP_CHANNEL_rx_bursts, taken > 0 ? 1 : 0);
	return taken;
}

static void
port_release(struct chp_channel *ch, const struct chp_channel_packet *packets, uint32_t n)
{
	struct port *p = port_of(ch);

	CHP_ASSERT_OP(n, <=, p->n_lent);
	for (uint32_t i = 0; i < n; i++)
		rte_pktmbuf_free(packets[i].opaque);
	p->n_lent -= n;
}

const struct chp_channel_ops chp_channel_port = {
	.name = "port",
	.open = port_open,
	.close = port_close,
	.send = port_send,
	.receive = port_receive,
	.release = port_release,
	.state = port_state,
};
