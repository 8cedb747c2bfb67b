/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * RDMA over a reliable connection (librdmacm, libibverbs): InfiniBand, RoCE, or rdma_rxe for tests.
 *
 * The replica listens and the host connects, and connects again, with back-off, when the connection was lost. With the
 * connection each end tells the other what it is and where its ring lies. A packet is one RDMA WRITE with immediate
 * into the peer's ring: it lies in the memory of who receives it, without a copy, and the immediate says where.
 *
 * The slots of a ring are used in turn. The receiver owns a slot from the completion until its packet is released;
 * then, an eighth of the ring at a time, it posts receives for what was released and writes the count of all slots it
 * ever gave back into the sender's memory, with a plain RDMA WRITE. Who sends never has more packets under way than
 * the peer has slots and receives for, so a receive never lacks.
 *
 * What is small enough is sent inline. The rest is copied to a buffer of its own, one for each place in the send queue.
 * Every eighth of the queue one work request asks for a completion, which stands for all before it. Errors complete
 * without being asked for.
 *
 * In the steady state nothing here makes a system call, but a look at the event channel every LOOK_UP_NS. Whoever has
 * nothing to send writes its count again every KEEP_NS, which fails when the peer is gone: nothing else would tell.
 */
#include "channel/transports.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "wire/host.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <rdma/rdma_cma.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MS UINT64_C(1000000)
/* Between two looks at the event channel, a system call each: while a connection is made, and while there is one. */
#define LOOK_NS (2 * MS)
#define LOOK_UP_NS (20 * MS)
#define KEEP_NS (500 * MS)
/* The host's tries to connect. */
#define RETRY_NS_MIN (50 * MS)
#define RETRY_NS_MAX (1000 * MS)
#define RESOLVE_MS 1000
/*
 * From the first step to an established connection: ten times what it takes. An attempt that took too long gives the
 * next one twice the time: on a machine that stands still every now and then none would ever succeed.
 */
#define CONNECT_NS_MIN (2000 * MS)
#define CONNECT_NS_MAX (16000 * MS)
/*
 * 4.096 us * 2^14 = 67 ms without an acknowledgement and the device sends again, seven times: a lost peer is known
 * after half a second. The kernel's own choice, 2 s each, is made for fabrics that recover by themselves.
 */
#define ACK_TIMEOUT 14u
#define RETRIES 7u

#define SLOTS_DEFAULT 1024u
#define SLOTS_MIN 64u
/* The immediate has 16 bits for the slot. */
#define SLOTS_MAX 65536u
#define INLINE_BYTES 256u

#define HELLO_MAGIC 0x52484343u /* the bytes 'C' 'C' 'H' 'R' */

enum refusal {
	ACCEPTED = 0,
	REFUSED_STRANGER = 1, /* not a channel */
	REFUSED_VERSION = 2,
	REFUSED_CLUSTER = 3,
	REFUSED_PAYLOAD = 4,
	REFUSED_SIDE = 5, /* two replicas or two hosts */
	REFUSED_BUSY = 6, /* another host is connected */
	REFUSED_RING = 7, /* a ring that cannot be */
};

/* The private data of connect, accept and reject: little-endian. RDMA_PS_TCP leaves 56 bytes to connect. */
struct hello {
	uint32_t magic;
	uint16_t version; /* CHP_CHANNEL_VERSION */
	uint8_t is_host;
	uint8_t refusal;  /* in reject */
	uint32_t cluster_hash;
	uint32_t payload_bytes_max;
	uint32_t slots;
	uint32_t slot_bytes;
	uint32_t rkey;    /* of ring and count */
	uint32_t reserved;
	uint64_t ring;    /* address of slot 0 */
	uint64_t count;   /* where the peer writes how many slots it gave back, 32 bits */
} CHP_PACKED;

_Static_assert(sizeof(struct hello) == 48, "wire format, at most 56");

enum phase {
	IDLE,       /* no connection; the host tries again at retry_ns */
	ADDRESS,    /* the host resolves the address */
	ROUTE,      /* and the route */
	CONNECTING, /* the host waits for the answer, the replica for the end of the hand-shake */
	UP,
	LOST,       /* to be taken down */
};

/* The peer's end of the connection. */
struct peer {
	uint64_t ring, count;
	uint32_t rkey;
	uint32_t slots, slot_bytes;
};

struct rdma {
	struct chp_channel ch;
	struct chp_channel_config config;
	uint32_t slots, slot_bytes;
	enum phase phase;

	/* Sending: work requests and packets are counted from 0 with each connection. */
	struct peer peer;
	uint32_t wr_posted, wr_completed, wr_asked; /* wr_asked: the last that asks for a completion */
	uint32_t sent;
	uint32_t inline_bytes;
	uint32_t staging_key;
	uint8_t *staging;              /* a slot for each work request of the send queue */
	_Atomic(uint32_t) *given_back; /* by the peer, of its slots: written by its device */

	/* Receiving. */
	uint8_t *ring;
	uint8_t *is_lent;    /* of each slot */
	uint32_t received; /* slots filled */
	uint32_t released; /* of these, given back in turn */
	uint32_t told;     /* of these, those that the peer knows of */
	uint32_t n_lent;

	/* The connection. */
	struct rdma_event_channel *events;
	struct rdma_cm_id *listener, *id;
	struct ibv_pd *pd;
	struct ibv_cq *tx_cq, *rx_cq;
	struct ibv_mr *ring_mr, *staging_mr;

	uint64_t now_ns;
	uint64_t look_ns;     /* when to look at the event channel again */
	uint64_t deadline_ns; /* of an attempt to connect */
	uint64_t connect_ns;  /* that the next one may take */
	uint64_t retry_ns, retry_wait_ns;
	uint64_t keep_ns;
	char text[CHP_CHANNEL_TEXT_BYTES];
};

static struct rdma *
rdma_of(struct chp_channel *ch)
{
	CHP_ASSERT(ch->ops == &chp_channel_rdma);
	return (struct rdma *)(void *)ch;
}

/* A few ms are exact enough, and the coarse clock costs no more than a load. */
static uint64_t
now_ns(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
	return (uint64_t)t.tv_sec * 1000 * MS + (uint64_t)t.tv_nsec;
}

__attribute__((format(printf, 2, 3))) static void
say(struct rdma *r, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	(void)vsnprintf(r->text, sizeof(r->text), format, args);
	va_end(args);
}

/* The connection, for which `text` says why, cannot be used any more: turn() takes it down. */
static void
drop(struct rdma *r)
{
	if (r->phase == UP)
		chp_channel_count(&r->ch, CHP_CHANNEL_downs, 1);
	r->phase = LOST;
	r->look_ns = 0;
}

/* The same, with the reason; the first one counts. */
#define LOSE(r, ...)                     \
	do {                             \
		if ((r)->phase != LOST)  \
			say(r, __VA_ARGS__); \
		drop(r);                 \
	} while (0)

/* ---------------------------------------------------------------- sending */

/* The place in the send queue, and in the staging memory, of the next work request. */
static uint8_t *
staging_of(const struct rdma *r, uint32_t wr)
{
	return r->staging + (size_t)(wr & (r->slots - 1)) * r->slot_bytes;
}

/* Learn from the send queue's completions what was sent. */
static void
poll_sent(struct rdma *r)
{
	struct ibv_wc wc[8];
	int n = ibv_poll_cq(r->tx_cq, 8, wc);

	if (n < 0)
		LOSE(r, "the device has no completions any more: %s", strerror(errno));
	for (int i = 0; i < n; i++) {
		if (wc[i].status != IBV_WC_SUCCESS)
			LOSE(r, "the other end is lost: %s", ibv_wc_status_str(wc[i].status));
		else
			r->wr_completed = (uint32_t)wc[i].wr_id + 1;
	}
}

/* Free places in the send queue. */
static uint32_t
wr_room(const struct rdma *r)
{
	return r->slots - (r->wr_posted - r->wr_completed);
}

/* Slots of the peer's ring that are free. */
static uint32_t
peer_room(const struct rdma *r)
{
	uint32_t back = atomic_load_explicit(r->given_back, memory_order_relaxed);
	uint32_t used = r->sent - back;

	/* A count that cannot be, from a peer that is not sane, is no room. */
	return used <= r->peer.slots ? r->peer.slots - used : 0;
}

/* Prepare the next work request: a write of these bytes to an address of the peer's. */
static void
prepare(struct rdma *r, struct ibv_send_wr *wr, struct ibv_sge *sge, const void *data, uint32_t len, uint64_t to)
{
	uint32_t n = r->wr_posted++;
	bool is_asked = n - r->wr_asked >= r->slots / 8;

	*sge = (struct ibv_sge){ .addr = (uintptr_t)data, .length = len };
	*wr = (struct ibv_send_wr){
		.wr_id = n,
		.sg_list = sge,
		.num_sge = 1,
		.opcode = IBV_WR_RDMA_WRITE,
		.wr.rdma = { .remote_addr = to, .rkey = r->peer.rkey },
	};
	if (len <= r->inline_bytes) {
		wr->send_flags = IBV_SEND_INLINE;
	} else {
		uint8_t *copy = staging_of(r, n);

		memcpy(copy, data, len);
		sge->addr = (uintptr_t)copy;
		sge->lkey = r->staging_key;
	}
	if (is_asked) {
		wr->send_flags |= IBV_SEND_SIGNALED;
		r->wr_asked = n;
	}
}

static void
post(struct rdma *r, struct ibv_send_wr *first)
{
	struct ibv_send_wr *bad;
	int err = ibv_post_send(r->id->qp, first, &bad);

	if (err != 0)
		LOSE(r, "the device takes no more to send: %s", strerror(err));
}

static uint32_t
rdma_send_packets(struct chp_channel *ch, const struct chp_channel_packet *packets, uint32_t n)
{
	struct rdma *r = rdma_of(ch);
	struct ibv_send_wr wr[CHP_CHANNEL_BURST];
	struct ibv_sge sge[CHP_CHANNEL_BURST];
	uint32_t room, bytes = 0;

	if (r->phase != UP) {
		chp_channel_count(ch, CHP_CHANNEL_drop_tx_down, n);
		return n;
	}
	room = chp_min_u32(n, CHP_CHANNEL_BURST);
	if (wr_room(r) < room + 1)
		poll_sent(r);
	/* One place is kept for giving back slots. */
	room = chp_min_u32(room, wr_room(r) > 0 ? wr_room(r) - 1 : 0);
	room = chp_min_u32(room, peer_room(r));
	for (uint32_t i = 0; i < room; i++) {
		uint32_t slot = r->sent++ & (r->peer.slots - 1);

		CHP_ASSERT(packets[i].len > 0 && packets[i].len <= ch->payload_bytes_max);
		prepare(r, &wr[i], &sge[i], packets[i].data, packets[i].len,
			r->peer.ring + (uint64_t)slot * r->peer.slot_bytes);
		wr[i].opcode = IBV_WR_RDMA_WRITE_WITH_IMM;
		wr[i].imm_data = htonl(slot << 16 | packets[i].len);
		wr[i].next = i + 1 < room ? &wr[i + 1] : NULL;
		bytes += packets[i].len;
	}
	chp_channel_count(ch, CHP_CHANNEL_tx_full, room < n ? 1 : 0);
	if (room == 0)
		return 0;
	post(r, wr);
	r->keep_ns = r->now_ns + KEEP_NS;
	chp_channel_count(ch, CHP_CHANNEL_tx_packets, room);
	chp_channel_count(ch, CHP_CHANNEL_tx_bytes, bytes);
	chp_channel_count(ch, CHP_CHANNEL_tx_bursts, 1);
	return room;
}

/* ---------------------------------------------------------------- receiving */

/* Post n receives: they have no memory, as the immediate says where the packet lies. */
static int
post_receives(struct rdma *r, uint32_t n)
{
	struct ibv_recv_wr wr[CHP_CHANNEL_BURST], *bad;

	while (n > 0) {
		uint32_t some = chp_min_u32(n, CHP_CHANNEL_BURST);
		int err;

		for (uint32_t i = 0; i < some; i++)
			wr[i] = (struct ibv_recv_wr){ .next = i + 1 < some ? &wr[i + 1] : NULL };
		err = ibv_post_recv(r->id->qp, wr, &bad);
		if (err != 0)
			return err;
		n -= some;
	}
	return 0;
}

/* Tell the peer how many slots were given back. */
static void
tell(struct rdma *r)
{
	struct ibv_send_wr wr;
	struct ibv_sge sge;

	if (wr_room(r) == 0)
		poll_sent(r);
	if (wr_room(r) == 0 || r->phase != UP)
		return;
	prepare(r, &wr, &sge, &r->told, sizeof(r->told), r->peer.count);
	post(r, &wr);
	r->keep_ns = r->now_ns + KEEP_NS;
}

/* Give back what was released, an eighth of the ring at a time. */
static void
give_back(struct rdma *r)
{
	uint32_t n = r->released - r->told;
	int err;

	if (n < r->slots / 8 || wr_room(r) == 0)
		return;
	err = post_receives(r, n);
	if (err != 0) {
		LOSE(r, "the device takes no more receives: %s", strerror(err));
		return;
	}
	r->told = r->released;
	tell(r);
}

/* Take one packet out of a completion; false when the connection is of no use any more. */
static bool
take(struct rdma *r, const struct ibv_wc *wc, struct chp_channel_packet *p)
{
	uint32_t imm = ntohl(wc->imm_data), slot = imm >> 16, len = imm & 0xffff;

	if (wc->status != IBV_WC_SUCCESS) {
		LOSE(r, "the other end is lost: %s", ibv_wc_status_str(wc->status));
		return false;
	}
	if (wc->opcode != IBV_WC_RECV_RDMA_WITH_IMM || slot != (r->received & (r->slots - 1)) || len == 0 ||
	    len > r->ch.payload_bytes_max || len != wc->byte_len || r->is_lent[slot]) {
		chp_channel_count(&r->ch, CHP_CHANNEL_drop_rx_length, 1);
		LOSE(r, "the other end writes what does not fit: slot %u, %u bytes", slot, len);
		return false;
	}
	r->received++;
	r->is_lent[slot] = 1;
	r->n_lent++;
	*p = (struct chp_channel_packet){
		.data = r->ring + (size_t)slot * r->slot_bytes,
		.len = len,
		.opaque = (void *)(uintptr_t)slot,
	};
	return true;
}

static void turn(struct rdma *r);

static uint32_t
rdma_receive(struct chp_channel *ch, struct chp_channel_packet *packets, uint32_t n)
{
	struct rdma *r = rdma_of(ch);
	struct ibv_wc wc[CHP_CHANNEL_BURST];
	uint32_t taken = 0;
	uint64_t bytes = 0;
	int found;

	r->now_ns = now_ns();
	if (r->now_ns >= r->look_ns)
		turn(r);
	if (r->phase != UP)
		return 0;
	give_back(r);
	n = chp_min_u32(chp_min_u32(n, CHP_CHANNEL_BURST), CHP_CHANNEL_LENT_MAX - r->n_lent);
	if (n == 0 || r->phase != UP)
		return 0;
	found = ibv_poll_cq(r->rx_cq, (int)n, wc);
	if (found < 0)
		LOSE(r, "the device has no completions any more: %s", strerror(errno));
	for (; (int)taken < found && take(r, &wc[taken], &packets[taken]); taken++)
		bytes += packets[taken].len;
	if (taken > 0) {
		chp_channel_count(ch, CHP_CHANNEL_rx_packets, taken);
		chp_channel_count(ch, CHP_CHANNEL_rx_bytes, bytes);
		chp_channel_count(ch, CHP_CHANNEL_rx_bursts, 1);
	}
	return taken;
}

static void
rdma_release(struct chp_channel *ch, const struct chp_channel_packet *packets, uint32_t n)
{
	struct rdma *r = rdma_of(ch);

	for (uint32_t i = 0; i < n; i++) {
		uint32_t slot = (uint32_t)(uintptr_t)packets[i].opaque;

		CHP_ASSERT(slot < r->slots && r->is_lent[slot]);
		r->is_lent[slot] = 0;
		r->n_lent--;
	}
	/* In turn: a slot goes back when all before it went. */
	while (r->released != r->received && !r->is_lent[r->released & (r->slots - 1)])
		r->released++;
}

/* ---------------------------------------------------------------- connections */

static struct hello
hello_of(const struct rdma *r, enum refusal refusal)
{
	return (struct hello){
		.magic = HELLO_MAGIC,
		.version = CHP_CHANNEL_VERSION,
		.is_host = r->ch.is_host,
		.refusal = (uint8_t)refusal,
		.cluster_hash = r->config.cluster_hash,
		.payload_bytes_max = r->ch.payload_bytes_max,
		.slots = r->slots,
		.slot_bytes = r->slot_bytes,
		.rkey = r->ring_mr != NULL ? r->ring_mr->rkey : 0,
		.ring = (uintptr_t)r->ring,
		.count = (uintptr_t)r->given_back,
	};
}

/* Whether this end can work with that one; says why not. */
static enum refusal
judge(struct rdma *r, const struct hello *h, const char *who)
{
	if (h->version != CHP_CHANNEL_VERSION) {
		say(r, "%s speaks version %u of the channel, we %u: install the same release at both ends", who,
		    h->version, CHP_CHANNEL_VERSION);
		return REFUSED_VERSION;
	}
	if (h->is_host == r->ch.is_host) {
		say(r, "%s is %s like this end: one of each belongs to a channel", who,
		    h->is_host ? "a host" : "a replica");
		return REFUSED_SIDE;
	}
	if (h->cluster_hash != r->config.cluster_hash) {
		say(r, "%s is of another cluster, hash %08x, ours is %08x: the cluster files differ", who,
		    h->cluster_hash, r->config.cluster_hash);
		return REFUSED_CLUSTER;
	}
	if (h->payload_bytes_max != r->ch.payload_bytes_max) {
		say(r, "%s has packets of %u bytes, we of %u: the MTUs differ", who, h->payload_bytes_max,
		    r->ch.payload_bytes_max);
		return REFUSED_PAYLOAD;
	}
	if (!chp_is_pow2(h->slots) || h->slots < SLOTS_MIN || h->slots > SLOTS_MAX ||
	    h->slot_bytes < h->payload_bytes_max) {
		say(r, "%s has a ring of %u slots of %u bytes", who, h->slots, h->slot_bytes);
		return REFUSED_RING;
	}
	return ACCEPTED;
}

/* The private data of an event; false when it is not one of ours. */
static bool
hello_in(const struct rdma_cm_event *e, struct hello *h)
{
	const struct rdma_conn_param *p = &e->param.conn;

	memset(h, 0, sizeof(*h));
	if (p->private_data == NULL || p->private_data_len < sizeof(*h))
		return false;
	memcpy(h, p->private_data, sizeof(*h));
	return h->magic == HELLO_MAGIC;
}

static void
meet(struct rdma *r, const struct hello *h)
{
	r->peer = (struct peer){
		.ring = h->ring,
		.count = h->count,
		.rkey = h->rkey,
		.slots = h->slots,
		.slot_bytes = h->slot_bytes,
	};
}

/* A queue pair that sends as much inline as we like, or as much as the device can. */
static int
create_qp(struct rdma *r)
{
	struct ibv_qp_init_attr attr;

	for (uint32_t bytes = INLINE_BYTES;; bytes /= 2) {
		attr = (struct ibv_qp_init_attr){
			.send_cq = r->tx_cq,
			.recv_cq = r->rx_cq,
			.qp_type = IBV_QPT_RC,
			.cap = {
				.max_send_wr = r->slots,
				.max_recv_wr = r->slots,
				.max_send_sge = 1,
				.max_recv_sge = 1,
				.max_inline_data = bytes >= 16 ? bytes : 0,
			},
		};
		if (rdma_create_qp(r->id, r->pd, &attr) == 0)
			break;
		if (bytes < 16)
			return -errno;
	}
	r->inline_bytes = attr.cap.max_inline_data;
	return 0;
}

/* Everything of a connection that belongs to the device; a new key of the ring, so that no earlier peer can write. */
static int
create_connection(struct rdma *r)
{
	struct ibv_context *device = r->id->verbs;
	size_t bytes = (size_t)r->slots * r->slot_bytes;
	int err;

	r->wr_posted = r->wr_completed = r->wr_asked = r->sent = 0;
	r->received = r->released = r->told = 0;
	atomic_store_explicit(r->given_back, 0, memory_order_relaxed);
	r->pd = ibv_alloc_pd(device);
	r->tx_cq = ibv_create_cq(device, (int)r->slots, NULL, NULL, 0);
	r->rx_cq = ibv_create_cq(device, (int)r->slots, NULL, NULL, 0);
	if (r->pd == NULL || r->tx_cq == NULL || r->rx_cq == NULL) {
		say(r, "%s has no queues of %u for us: %s; use a smaller ring", ibv_get_device_name(device->device),
		    r->slots, strerror(errno));
		return -1;
	}
	/* The count lies behind the last slot. */
	r->ring_mr = ibv_reg_mr(r->pd, r->ring, bytes + CHP_CACHE_LINE,
				IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
	r->staging_mr = ibv_reg_mr(r->pd, r->staging, bytes, 0);
	if (r->ring_mr == NULL || r->staging_mr == NULL) {
		say(r, "%s cannot register %zu bytes: %s; raise the limit of locked memory (ulimit -l)",
		    ibv_get_device_name(device->device), 2 * bytes, strerror(errno));
		return -1;
	}
	r->staging_key = r->staging_mr->lkey;
	err = create_qp(r);
	if (err == 0)
		err = -post_receives(r, r->slots);
	if (err != 0)
		say(r, "%s has no queue pair of %u for us: %s; use a smaller ring",
		    ibv_get_device_name(device->device), r->slots, strerror(-err));
	return err;
}

static void
destroy_connection(struct rdma *r)
{
	if (r->id != NULL && r->id->qp != NULL) {
		(void)rdma_disconnect(r->id);
		rdma_destroy_qp(r->id);
	}
	if (r->ring_mr != NULL)
		(void)ibv_dereg_mr(r->ring_mr);
	if (r->staging_mr != NULL)
		(void)ibv_dereg_mr(r->staging_mr);
	if (r->tx_cq != NULL)
		(void)ibv_destroy_cq(r->tx_cq);
	if (r->rx_cq != NULL)
		(void)ibv_destroy_cq(r->rx_cq);
	if (r->pd != NULL)
		(void)ibv_dealloc_pd(r->pd);
	if (r->id != NULL)
		(void)rdma_destroy_id(r->id);
	r->id = NULL;
	r->pd = NULL;
	r->tx_cq = r->rx_cq = NULL;
	r->ring_mr = r->staging_mr = NULL;
}

static struct rdma_conn_param
conn_param_of(const struct hello *h)
{
	return (struct rdma_conn_param){
		.private_data = h,
		.private_data_len = sizeof(*h),
		.retry_count = RETRIES,
		.rnr_retry_count = RETRIES,
	};
}

/* Not every device can; then a lost peer is found later. */
static void
set_timeout(struct rdma_cm_id *id)
{
	uint8_t timeout = ACK_TIMEOUT;

	(void)rdma_set_option(id, RDMA_OPTION_ID, RDMA_OPTION_ID_ACK_TIMEOUT, &timeout, sizeof(timeout));
}

static struct sockaddr_in
address_of(const struct rdma *r)
{
	return (struct sockaddr_in){
		.sin_family = AF_INET,
		.sin_port = htons((uint16_t)r->config.service),
		.sin_addr = { htonl(r->config.address) },
	};
}

static const char *
address_text(const struct rdma *r, char *text)
{
	struct in_addr a = { htonl(r->config.address) };

	return inet_ntop(AF_INET, &a, text, INET_ADDRSTRLEN);
}

static void
stop_listening(struct rdma *r)
{
	if (r->listener != NULL)
		(void)rdma_destroy_id(r->listener);
	r->listener = NULL;
}

/* The replica waits for its host; `text` says whether it does. */
static int
listen_here(struct rdma *r)
{
	struct sockaddr_in at = address_of(r);
	char address[INET_ADDRSTRLEN];

	if (rdma_create_id(r->events, &r->listener, r, RDMA_PS_TCP) != 0) {
		r->listener = NULL;
	} else if (rdma_bind_addr(r->listener, (struct sockaddr *)(void *)&at) == 0 &&
		   rdma_listen(r->listener, 4) == 0) {
		say(r, "waits for the host at %s:%u", address_text(r, address), r->config.service);
		return 0;
	}
	say(r, "cannot listen at %s:%u: %s; the address must be an RDMA device's and the service free",
	    address_text(r, address), r->config.service, strerror(errno));
	stop_listening(r);
	r->retry_ns = r->now_ns + RETRY_NS_MAX;
	return -1;
}

/* The host begins to connect. */
static void
begin(struct rdma *r)
{
	struct sockaddr_in to = address_of(r);

	r->phase = ADDRESS;
	r->deadline_ns = r->now_ns + r->connect_ns;
	if (rdma_create_id(r->events, &r->id, r, RDMA_PS_TCP) != 0) {
		r->id = NULL;
		LOSE(r, "cannot make a connection: %s", strerror(errno));
		return;
	}
	if (rdma_resolve_addr(r->id, NULL, (struct sockaddr *)(void *)&to, RESOLVE_MS) != 0)
		LOSE(r, "no RDMA device leads to the replica's address: %s", strerror(errno));
}

/* The host knows the way and the device. */
static void
connect_to(struct rdma *r)
{
	struct rdma_conn_param param;
	struct hello h;

	if (create_connection(r) != 0) {
		drop(r);
		return;
	}
	h = hello_of(r, ACCEPTED);
	param = conn_param_of(&h);
	r->phase = CONNECTING;
	if (rdma_connect(r->id, &param) != 0)
		LOSE(r, "cannot connect: %s", strerror(errno));
}

static void
reject(struct rdma *r, struct rdma_cm_id *id, enum refusal refusal)
{
	struct hello h = hello_of(r, refusal);

	(void)rdma_reject(id, &h, sizeof(h));
	(void)rdma_destroy_id(id);
	chp_channel_count(&r->ch, CHP_CHANNEL_refused, 1);
}

/* Somebody connects to the replica. */
static void
on_request(struct rdma *r, struct rdma_cm_id *id, const struct hello *h, bool is_ours)
{
	struct rdma_conn_param param;
	struct hello answer;
	enum refusal refusal;

	/* Who is connected stays connected. If it is not there any more, that is known within a second or two. */
	if (r->id != NULL) {
		reject(r, id, REFUSED_BUSY);
		return;
	}
	if (!is_ours)
		say(r, "something that is not a channel connected here");
	refusal = is_ours ? judge(r, h, "the host that connects") : REFUSED_STRANGER;
	if (refusal != ACCEPTED) {
		reject(r, id, refusal);
		return;
	}
	r->id = id;
	r->phase = CONNECTING;
	r->deadline_ns = r->now_ns + r->connect_ns;
	set_timeout(id);
	if (create_connection(r) != 0) {
		drop(r);
		return;
	}
	meet(r, h);
	answer = hello_of(r, ACCEPTED);
	param = conn_param_of(&answer);
	if (rdma_accept(id, &param) != 0)
		LOSE(r, "cannot accept a connection: %s", strerror(errno));
}

static void
on_established(struct rdma *r, const struct hello *h, bool is_ours)
{
	char address[INET_ADDRSTRLEN];

	if (r->ch.is_host) {
		enum refusal refusal = is_ours ? judge(r, h, "the replica") : REFUSED_STRANGER;

		if (refusal != ACCEPTED) {
			chp_channel_count(&r->ch, CHP_CHANNEL_refused, 1);
			if (!is_ours)
				say(r, "what listens at the replica's address is not a replica");
			drop(r);
			return;
		}
		meet(r, h);
	}
	r->phase = UP;
	r->retry_wait_ns = RETRY_NS_MIN;
	r->connect_ns = CONNECT_NS_MIN;
	r->keep_ns = r->now_ns + KEEP_NS;
	chp_channel_count(&r->ch, CHP_CHANNEL_ups, 1);
	say(r, "%s at %s, device %s", r->ch.is_host ? "the replica" : "a host",
	    inet_ntop(AF_INET, &((struct sockaddr_in *)(void *)rdma_get_peer_addr(r->id))->sin_addr, address,
		      sizeof(address)),
	    ibv_get_device_name(r->id->verbs->device));
}

/* The replica refuses the host: say it as judge() would here. Or the host gave up what the replica had accepted. */
static void
on_rejected(struct rdma *r, const struct hello *h, bool is_ours, int status)
{
	if (!r->ch.is_host) {
		LOSE(r, "the host that connected gave up (%d)", status);
		return;
	}
	if (!is_ours) {
		LOSE(r, "nobody listens at the replica's address (%d)", status);
		return;
	}
	chp_channel_count(&r->ch, CHP_CHANNEL_refused, 1);
	r->retry_wait_ns = RETRY_NS_MAX;
	if (h->refusal == REFUSED_BUSY)
		LOSE(r, "refused by the replica: another host is connected to it");
	else if (judge(r, h, "the replica, which refuses us,") == ACCEPTED)
		LOSE(r, "refused by the replica, which says reason %u", h->refusal);
	else
		drop(r);
}

static void
on_event(struct rdma *r, enum rdma_cm_event_type type, int status, const struct hello *h, bool is_ours)
{
	switch (type) {
	case RDMA_CM_EVENT_ADDR_RESOLVED:
		set_timeout(r->id);
		r->phase = ROUTE;
		if (rdma_resolve_route(r->id, RESOLVE_MS) != 0)
			LOSE(r, "no route to the replica: %s", strerror(errno));
		return;
	case RDMA_CM_EVENT_ROUTE_RESOLVED:
		connect_to(r);
		return;
	case RDMA_CM_EVENT_ESTABLISHED:
		on_established(r, h, is_ours);
		return;
	case RDMA_CM_EVENT_REJECTED:
		on_rejected(r, h, is_ours, status);
		return;
	case RDMA_CM_EVENT_DISCONNECTED:
		LOSE(r, "the other end closed the connection");
		return;
	case RDMA_CM_EVENT_DEVICE_REMOVAL:
		LOSE(r, "the RDMA device is gone");
		return;
	case RDMA_CM_EVENT_TIMEWAIT_EXIT:
	case RDMA_CM_EVENT_ADDR_CHANGE:
		return;
	default:
		LOSE(r, "cannot connect: %s (%d)", rdma_event_str(type), status);
	}
}

/* Take one event; false when there is none. */
static bool
next_event(struct rdma *r)
{
	struct rdma_cm_event *e;
	enum rdma_cm_event_type type;
	struct rdma_cm_id *id;
	struct hello h;
	bool is_ours;
	int status;

	if (rdma_get_cm_event(r->events, &e) != 0)
		return false;
	type = e->event;
	id = e->id;
	status = e->status;
	is_ours = (type == RDMA_CM_EVENT_CONNECT_REQUEST || type == RDMA_CM_EVENT_ESTABLISHED ||
		   type == RDMA_CM_EVENT_REJECTED) && hello_in(e, &h);
	/* Before an id is destroyed all its events must have been acknowledged. */
	(void)rdma_ack_cm_event(e);
	if (type == RDMA_CM_EVENT_CONNECT_REQUEST)
		on_request(r, id, &h, is_ours);
	else if (id == r->id && r->phase != LOST)
		on_event(r, type, status, &h, is_ours);
	else if (id == r->listener && type == RDMA_CM_EVENT_DEVICE_REMOVAL)
		stop_listening(r); /* turn() begins again: the device may return */
	return true;
}

static void
take_down(struct rdma *r)
{
	destroy_connection(r);
	r->phase = IDLE;
	r->retry_ns = r->now_ns + r->retry_wait_ns;
	r->retry_wait_ns = chp_min_u64(2 * r->retry_wait_ns, RETRY_NS_MAX);
}

/* What is to be done from time to time. */
static void
turn(struct rdma *r)
{
	if (r->phase == LOST)
		take_down(r);
	/* The next peer writes into the ring from its first slot on: not while somebody still reads there. */
	if (r->phase != IDLE || r->n_lent == 0) {
		for (uint32_t i = 0; i < 8 && r->phase != LOST && next_event(r); i++)
			;
	}
	if (r->phase == UP) {
		poll_sent(r);
		if (r->phase == UP && r->now_ns >= r->keep_ns)
			tell(r);
	} else if (r->phase == IDLE && r->ch.is_host && r->n_lent == 0 && r->now_ns >= r->retry_ns) {
		begin(r);
	} else if (r->phase == IDLE && !r->ch.is_host && r->listener == NULL && r->now_ns >= r->retry_ns) {
		(void)listen_here(r);
	} else if ((r->phase == ADDRESS || r->phase == ROUTE || r->phase == CONNECTING) &&
		   r->now_ns >= r->deadline_ns) {
		r->connect_ns = chp_min_u64(2 * r->connect_ns, CONNECT_NS_MAX);
		LOSE(r, "the other end does not answer");
	}
	r->look_ns = r->phase == LOST ? 0 : r->now_ns + (r->phase == UP ? LOOK_UP_NS : LOOK_NS);
}

static enum chp_channel_state
rdma_state(struct chp_channel *ch, const char **text)
{
	struct rdma *r = rdma_of(ch);

	r->now_ns = now_ns();
	if (r->now_ns >= r->look_ns)
		turn(r);
	if (text != NULL)
		*text = r->text;
	return r->phase == UP ? CHP_CHANNEL_UP : CHP_CHANNEL_DOWN;
}

/* ---------------------------------------------------------------- opening */

static void
rdma_close(struct chp_channel *ch)
{
	struct rdma *r = rdma_of(ch);

	destroy_connection(r);
	stop_listening(r);
	if (r->events != NULL)
		rdma_destroy_event_channel(r->events);
	free(r->ring);
	free(r->staging);
	free(r->is_lent);
	free(r);
}

static bool
has_device(void)
{
	int n = 0;
	struct ibv_device **list = ibv_get_device_list(&n);

	if (list != NULL)
		ibv_free_device_list(list);
	return list != NULL && n > 0;
}

/* The memory of both rings, once and for all; behind ours lies the count that the peer writes. */
static int
allocate(struct rdma *r)
{
	size_t bytes = (size_t)r->slots * r->slot_bytes;

	r->ring = aligned_alloc(4096, chp_align_size(bytes + CHP_CACHE_LINE, 4096));
	r->staging = aligned_alloc(4096, chp_align_size(bytes, 4096));
	r->is_lent = calloc(r->slots, 1);
	if (r->ring == NULL || r->staging == NULL || r->is_lent == NULL)
		return -1;
	memset(r->ring, 0, bytes + CHP_CACHE_LINE);
	memset(r->staging, 0, bytes);
	r->given_back = (void *)(r->ring + bytes);
	return 0;
}

static int
make(struct rdma *r, struct chp_channel_error *error)
{
	const struct chp_channel_config *config = &r->config;

	if (!chp_is_pow2(r->slots) || r->slots < SLOTS_MIN || r->slots > SLOTS_MAX || config->service == 0 ||
	    config->service > 65535 || (config->is_host && config->address == 0)) {
		error->is_usage = true;
		(void)snprintf(error->text, sizeof(error->text),
			       "channel rdma: needs a ring of a power of two from %u to %u, a service from 1 to 65535, "
			       "and at the host the replica's address", SLOTS_MIN, SLOTS_MAX);
		return -1;
	}
	if (!has_device()) {
		(void)snprintf(error->text, sizeof(error->text), "channel rdma: no RDMA device on this machine: "
			       "load the driver of the adapter; `rdma link` lists what there is");
		return -1;
	}
	if (allocate(r) != 0) {
		(void)snprintf(error->text, sizeof(error->text), "channel rdma: no memory for rings of %u packets",
			       r->slots);
		return -1;
	}
	r->events = rdma_create_event_channel();
	if (r->events == NULL || fcntl(r->events->fd, F_SETFL, fcntl(r->events->fd, F_GETFL) | O_NONBLOCK) != 0) {
		(void)snprintf(error->text, sizeof(error->text), "channel rdma: no connection manager: %s; "
			       "`modprobe rdma_ucm` brings it", strerror(errno));
		return -1;
	}
	if (!config->is_host && listen_here(r) != 0) {
		(void)snprintf(error->text, sizeof(error->text), "channel rdma: %.200s", r->text);
		return -1;
	}
	if (config->is_host)
		say(r, "connects to the replica");
	return 0;
}

static struct chp_channel *
rdma_open(const struct chp_channel_config *config, struct chp_channel_error *error)
{
	struct rdma *r = calloc(1, sizeof(*r));

	*error = (struct chp_channel_error){ 0 };
	if (r == NULL) {
		(void)snprintf(error->text, sizeof(error->text), "channel rdma: no memory");
		return NULL;
	}
	r->ch.ops = &chp_channel_rdma;
	r->ch.payload_bytes_max = config->payload_bytes_max;
	r->ch.is_host = config->is_host;
	r->config = *config;
	r->slots = config->ring != 0 ? config->ring : SLOTS_DEFAULT;
	r->slot_bytes = chp_align_u32(config->payload_bytes_max, CHP_CACHE_LINE);
	r->retry_wait_ns = RETRY_NS_MIN;
	r->connect_ns = CONNECT_NS_MIN;
	if (make(r, error) != 0) {
		rdma_close(&r->ch);
		return NULL;
	}
	return &r->ch;
}

const struct chp_channel_ops chp_channel_rdma = {
	.name = "rdma",
	.open = rdma_open,
	.close = rdma_close,
	.send = rdma_send_packets,
	.receive = rdma_receive,
	.release = rdma_release,
	.state = rdma_state,
};
