/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The channel over ports: frames that are none are dropped and counted by their own cause; and over vhost and
 * virtio-user between two processes, either of which is killed and comes back.
 */
#include "base/bytes.h"
#include "channel/frame.h"
#include "channel/transports.h"
#include "pipeline/clock.h"

#include <criterion/criterion.h>
#include <rte_alarm.h>
#include <rte_dmadev.h>
#include <rte_eal.h>
#include <rte_eth_ring.h>
#include <rte_ethdev.h>
#include <rte_malloc.h>
#include <rte_mbuf.h>

#include <errno.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAYLOAD CHP_PAYLOAD_BYTES_MIN
#define WAIT_NS (60 * CHP_NS_PER_S)
#define KILLS 4u

static bool
start_eal(const char *vdev, bool huge)
{
	const char *words[] = { "test", "-l", "0", "--no-pci", "--no-telemetry", "--iova-mode=va", "-m", "256",
				"--log-level=*:emerg", huge ? "--in-memory" : "--no-huge",
				huge ? "--single-file-segments" : "--no-shconf", "--vdev", vdev };
	static char copy[CHP_ARRAY_LEN(words)][256];
	char *argv[CHP_ARRAY_LEN(words) + 1] = { NULL };
	int argc = (int)CHP_ARRAY_LEN(words) - (vdev == NULL ? 2 : 0);

	for (int i = 0; i < argc; i++) {
		(void)snprintf(copy[i], sizeof(copy[i]), "%s", words[i]);
		argv[i] = copy[i];
	}
	return rte_eal_init(argc, argv) >= 0;
}

static struct chp_channel *
try_open(const char *port, bool is_host, struct chp_channel_error *error)
{
	const struct chp_channel_config config = {
		.is_host = is_host,
		.payload_bytes_max = PAYLOAD,
		.name = is_host ? "host" : "replica",
		.port = port,
	};

	return chp_channel_port.open(&config, error);
}

static struct chp_channel *
open_end(const char *port, bool is_host)
{
	struct chp_channel_error error = { 0 };
	struct chp_channel *ch = try_open(port, is_host, &error);

	cr_assert_not_null(ch, "%s", error.text);
	return ch;
}

static uint64_t
now_ns(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * CHP_NS_PER_S + (uint64_t)t.tv_nsec;
}

/* ------------------------------------------------------------------ in one process, over rings */

static struct rte_ring *to_replica, *to_host;
static struct chp_channel *replica, *host;
static struct rte_mempool *pool;

static void
begin(void)
{
	cr_assert(start_eal(NULL, false));
	to_replica = rte_ring_create("to_replica", 64, 0, RING_F_SP_ENQ | RING_F_SC_DEQ);
	to_host = rte_ring_create("to_host", 64, 0, RING_F_SP_ENQ | RING_F_SC_DEQ);
	cr_assert_geq(rte_eth_from_rings("replica", &to_replica, 1, &to_host, 1, 0), 0);
	cr_assert_geq(rte_eth_from_rings("host", &to_host, 1, &to_replica, 1, 0), 0);
	pool = rte_pktmbuf_pool_create("test", 255, 0, 0, RTE_MBUF_DEFAULT_BUF_SIZE, 0);
	cr_assert_not_null(pool);
	replica = open_end("net_ring_replica", false);
	host = open_end("net_ring_host", true);
}

static void
finish(void)
{
	chp_channel_close(replica);
	chp_channel_close(host);
}

TestSuite(channel_port, .init = begin, .fini = finish);

static struct chp_channel_packet
packet_of(void *data, uint32_t len)
{
	return (struct chp_channel_packet){ .data = data, .len = len };
}

Test(channel_port, packets_of_every_size_pass_unchanged_both_ways)
{
	static uint8_t sent[PAYLOAD];
	struct chp_channel *end[] = { replica, host };

	for (uint32_t i = 0; i < PAYLOAD; i++)
		sent[i] = (uint8_t)(i * 7 + i / 256);
	for (uint32_t len = 1; len <= PAYLOAD; len++) {
		struct chp_channel_packet p = packet_of(sent, len);
		uint32_t from = len & 1;

		cr_assert_eq(chp_channel_send(end[from], &p, 1), 1);
		memset(&p, 0, sizeof(p));
		cr_assert_eq(chp_channel_receive(end[1 - from], &p, 1), 1, "length %u", len);
		cr_assert_eq(p.len, len);
		cr_assert_eq(memcmp(p.data, sent, len), 0);
		chp_channel_release(end[1 - from], &p, 1);
	}
	cr_assert_eq(chp_channel_state(replica, NULL), CHP_CHANNEL_UP);
}

Test(channel_port, a_full_device_takes_no_more_and_nothing_leaks)
{
	uint8_t byte = 1;
	struct chp_channel_packet p[2 * CHP_CHANNEL_BURST], got[CHP_CHANNEL_BURST];
	uint32_t n;

	for (uint32_t i = 0; i < CHP_ARRAY_LEN(p); i++)
		p[i] = packet_of(&byte, 1);
	/* More often than there are mbufs. */
	for (uint32_t round = 0; round < 4000; round++) {
		/* A ring of 64 holds 63. */
		cr_assert_eq(chp_channel_send(replica, p, 2 * CHP_CHANNEL_BURST), 63);
		cr_assert_eq(chp_channel_send(replica, p, 1), 0);
		while ((n = chp_channel_receive(host, got, CHP_CHANNEL_BURST)) > 0)
			chp_channel_release(host, got, n);
	}
	cr_assert_eq(chp_channel_counter(replica, CHP_CHANNEL_tx_full), 8000);
	cr_assert_eq(chp_channel_counter(replica, CHP_CHANNEL_tx_packets), 4000 * 63);
	cr_assert_eq(chp_channel_counter(host, CHP_CHANNEL_rx_packets), 4000 * 63);
	cr_assert_eq(chp_channel_counter(replica, CHP_CHANNEL_tx_no_buffer), 0);
}

Test(channel_port, what_is_not_released_has_a_limit)
{
	uint8_t byte = 1;
	struct chp_channel_packet p = packet_of(&byte, 1), got[CHP_CHANNEL_LENT_MAX + 1];

	for (uint32_t i = 0; i < CHP_CHANNEL_LENT_MAX; i++) {
		cr_assert_eq(chp_channel_send(replica, &p, 1), 1);
		cr_assert_eq(chp_channel_receive(host, &got[i], 1), 1);
	}
	cr_assert_eq(chp_channel_send(replica, &p, 1), 1);
	cr_assert_eq(chp_channel_receive(host, &got[CHP_CHANNEL_LENT_MAX], 1), 0);
	chp_channel_release(host, &got[7], 1);
	cr_assert_eq(chp_channel_receive(host, &got[7], 1), 1);
	chp_channel_release(host, got, CHP_CHANNEL_LENT_MAX);
}

Test(channel_port, a_host_is_found_and_found_again_with_another_address)
{
	static const uint8_t everybody[6] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
	uint8_t byte = 1;
	struct chp_channel_packet p = packet_of(&byte, 1), got;
	uint64_t until_ns = now_ns() + WAIT_NS;
	const struct chp_channel_frame *f;
	bool is_found = true;

	cr_assert_eq(chp_channel_send(replica, &p, 1), 1);
	cr_assert_eq(chp_channel_receive(host, &got, 1), 1);
	f = (const void *)(got.data - CHP_CHANNEL_FRAME_BYTES);
	cr_assert_eq(memcmp(f->to, everybody, 6), 0);
	chp_channel_release(host, &got, 1);
	cr_assert_eq(chp_channel_send(host, &p, 1), 1);
	cr_assert_eq(chp_channel_receive(replica, &got, 1), 1);
	chp_channel_release(replica, &got, 1);
	/* Where it is, is known now, until it has been silent for a second: it may be back with another address. */
	for (uint32_t sent = 0; is_found; sent++) {
		cr_assert_lt(now_ns(), until_ns);
		cr_assert_eq(chp_channel_send(replica, &p, 1), 1);
		cr_assert_eq(chp_channel_receive(host, &got, 1), 1);
		f = (const void *)(got.data - CHP_CHANNEL_FRAME_BYTES);
		is_found = memcmp(f->to, everybody, 6) != 0;
		cr_assert(is_found || sent > 0);
		chp_channel_release(host, &got, 1);
	}
}

/* Put a frame before the host as it is. */
static void
inject(const void *frame, uint32_t len)
{
	struct rte_mbuf *m = rte_pktmbuf_alloc(pool);

	cr_assert_not_null(m);
	if (len > 0)
		memcpy(rte_pktmbuf_mtod(m, void *), frame, len);
	m->data_len = (uint16_t)len;
	m->pkt_len = len;
	cr_assert_eq(rte_ring_enqueue(to_host, m), 0);
}

/* What the host makes of it. */
static void
expect(enum chp_channel_counter which)
{
	static uint64_t before[CHP_CHANNEL_COUNTER_COUNT];
	struct chp_channel_packet got;
	uint32_t n = chp_channel_receive(host, &got, 1);

	cr_assert_eq(n, which == CHP_CHANNEL_COUNTER_COUNT ? 1u : 0u);
	if (n > 0)
		chp_channel_release(host, &got, n);
	for (uint32_t i = CHP_CHANNEL_drop_tx_down; i < CHP_CHANNEL_COUNTER_COUNT; i++) {
		uint64_t now = chp_channel_counter(host, i);

		cr_assert_eq(now - before[i], i == which ? 1u : 0u, "%s", chp_channel_counter_name(i));
		before[i] = now;
	}
}

Test(channel_port, every_bad_frame_has_its_counter)
{
	static const uint8_t mac[6] = { 2, 0, 0, 0, 0, 9 };
	uint8_t good[256] = { 0 }, bad[256];
	uint32_t len = chp_channel_frame_build(good, 100, false, mac, NULL);
	struct chp_channel_frame *f = (void *)bad;
	struct rte_mbuf *m;

	inject(good, len);
	expect(CHP_CHANNEL_COUNTER_COUNT);
	inject(good, 0);
	expect(CHP_CHANNEL_drop_rx_runt);
	inject(good, CHP_CHANNEL_FRAME_BYTES - 1);
	expect(CHP_CHANNEL_drop_rx_runt);
#define SPOILT(statement, which)             \
	memcpy(bad, good, sizeof(bad)); \
	statement;                      \
	inject(bad, len);               \
	expect(which)
	SPOILT(f->type = 0x0008, CHP_CHANNEL_drop_rx_type);
	SPOILT(f->subtype++, CHP_CHANNEL_drop_rx_type);
	SPOILT(f->version++, CHP_CHANNEL_drop_rx_type);
	SPOILT(f->is_host = 1, CHP_CHANNEL_drop_rx_side);
	SPOILT(f->is_host = 2, CHP_CHANNEL_drop_rx_side);
	SPOILT(f->len = 0, CHP_CHANNEL_drop_rx_length);
	SPOILT(f->len = __builtin_bswap16(101), CHP_CHANNEL_drop_rx_length);
	SPOILT(f->len = 0xffff, CHP_CHANNEL_drop_rx_length);
	SPOILT(f->len = __builtin_bswap16(99), CHP_CHANNEL_COUNTER_COUNT); /* padded */
#undef SPOILT
	inject(good, len);
	cr_assert_eq(rte_ring_dequeue(to_host, (void **)&m), 0);
	m->next = rte_pktmbuf_alloc(pool);
	m->nb_segs = 2;
	cr_assert_eq(rte_ring_enqueue(to_host, m), 0);
	expect(CHP_CHANNEL_drop_rx_segments);
	cr_assert_eq(rte_mempool_avail_count(pool), 255);
}

Test(channel_port, a_frame_that_is_longer_than_packets_may_be_is_dropped)
{
	static uint8_t frame[2000];
	static const uint8_t mac[6] = { 2, 0, 0, 0, 0, 9 };

	inject(frame, chp_channel_frame_build(frame, PAYLOAD + 1, false, mac, NULL));
	expect(CHP_CHANNEL_drop_rx_length);
}

Test(channel_port, a_port_that_does_not_exist_is_refused_with_those_that_do)
{
	const struct chp_channel_config config = { .payload_bytes_max = PAYLOAD, .name = "x", .port = "net_vhost7" };
	struct chp_channel_error error = { 0 };

	cr_assert_null(chp_channel_port.open(&config, &error));
	cr_assert_not_null(strstr(error.text, "\"net_vhost7\" of the channel does not exist; the ports that do: "
					      "net_ring_replica, net_ring_host"), "%s", error.text);
	cr_assert_not(error.is_usage);
	cr_assert_eq(chp_channel_find("port"), &chp_channel_port);
	cr_assert_null(chp_channel_find("ports"));
}

/* ------------------------------------------------------------------ with a DMA device */

/*
 * A channel whose frames end in to_replica. The driver of the device has a thread that copies. A port goes with its
 * channel and its name is not free again: each has another one.
 */
static struct chp_channel *
open_dma(const char *dma, struct chp_channel_error *error)
{
	static uint32_t n;
	char name[16], port[32];
	const struct chp_channel_config config = { .payload_bytes_max = PAYLOAD, .name = "dma",
						   .port = port, .dma = dma };

	(void)snprintf(name, sizeof(name), "replica%u", n++);
	(void)snprintf(port, sizeof(port), "net_ring_%s", name);
	cr_assert_geq(rte_eth_from_rings(name, &to_replica, 1, &to_replica, 1, 0), 0);
	return chp_channel_port.open(&config, error);
}

static void
begin_dma(void)
{
	cr_assert(start_eal("dma_skeleton", false));
	to_replica = rte_ring_create("to_replica", 64, 0, RING_F_SP_ENQ | RING_F_SC_DEQ);
}

TestSuite(channel_dma, .init = begin_dma);

/* Bursts that are large enough for the device arrive as they were when they were sent. */
static void
pass_bursts(struct chp_channel *ch, uint32_t rounds)
{
	static uint8_t data[CHP_CHANNEL_BURST][PAYLOAD];
	struct chp_channel_packet p[CHP_CHANNEL_BURST];

	for (uint32_t round = 0; round < rounds; round++) {
		for (uint32_t i = 0; i < CHP_CHANNEL_BURST; i++) {
			memset(data[i], (int)(round + i), PAYLOAD);
			p[i] = packet_of(data[i], PAYLOAD - i);
		}
		cr_assert_eq(chp_channel_send(ch, p, CHP_CHANNEL_BURST), CHP_CHANNEL_BURST);
		memset(data, 0xff, sizeof(data)); /* the caller's again */
		for (uint32_t i = 0; i < CHP_CHANNEL_BURST; i++) {
			struct rte_mbuf *m;
			const uint8_t *bytes;

			cr_assert_eq(rte_ring_dequeue(to_replica, (void **)&m), 0);
			bytes = rte_pktmbuf_mtod(m, const uint8_t *) + CHP_CHANNEL_FRAME_BYTES;
			for (uint32_t k = 0; k < PAYLOAD - i; k++)
				cr_assert_eq(bytes[k], (uint8_t)(round + i), "round %u, packet %u", round, i);
			rte_pktmbuf_free(m);
		}
	}
}

/*
 * A channel of which so many bursts were all copied by the device. Where its driver's thread gets no processor for as
 * long as a device may take, the device is given up, as it must be; then once more.
 */
static struct chp_channel *
open_copied(uint32_t rounds)
{
	const uint64_t all = (uint64_t)rounds * CHP_CHANNEL_BURST;
	struct chp_channel_error error = { 0 };
	struct chp_channel *ch = open_dma("dma_skeleton", &error);

	cr_assert_not_null(ch, "%s", error.text);
	pass_bursts(ch, rounds);
	for (uint32_t tries = 0; chp_channel_counter(ch, CHP_CHANNEL_dma_copies) != all; tries++) {
		cr_assert_lt(tries, 20, "never were all of them copied by the device");
		chp_channel_close(ch);
		ch = open_dma("dma_skeleton", &error);
		cr_assert_not_null(ch, "%s", error.text);
		pass_bursts(ch, rounds);
	}
	return ch;
}

Test(channel_dma, large_bursts_are_copied_by_the_device)
{
	struct chp_channel_error error = { 0 };
	struct chp_channel_packet p[3];
	struct chp_channel *ch;
	uint8_t byte = 1;

	cr_assert_null(open_dma("dma_skeleton7", &error));
	cr_assert_not_null(strstr(error.text, "the DMA device \"dma_skeleton7\" of the channel does not exist"), "%s",
			   error.text);
	ch = open_copied(50);
	for (uint32_t i = 0; i < CHP_ARRAY_LEN(p); i++)
		p[i] = packet_of(&byte, 1);
	cr_assert_eq(chp_channel_send(ch, p, 3), 3); /* too few for it */
	cr_assert_eq(chp_channel_counter(ch, CHP_CHANNEL_dma_copies), 50 * CHP_CHANNEL_BURST);
	chp_channel_close(ch);
}

/* A device that does as it is told here, in place of the skeleton. */
static struct {
	uint32_t takes;     /* copies of a burst that it takes */
	uint32_t fails;     /* each so-manieth comes to nothing; 0: none */
	uint32_t stops_at;  /* copies that it finishes, then no more */
	uint32_t n, done;   /* of this burst */
	uint32_t made;      /* successfully, of all bursts */
	struct {
		void *to;
		const void *from;
		uint32_t len;
	} copy[CHP_CHANNEL_BURST];
} fake;

static int
fake_copy(void *device, uint16_t vchan, rte_iova_t from, rte_iova_t to, uint32_t len, uint64_t flags)
{
	(void)device;
	(void)vchan;
	(void)flags;
	if (fake.n == fake.takes)
		return -ENOSPC;
	fake.copy[fake.n].to = (void *)(uintptr_t)to;
	fake.copy[fake.n].from = (const void *)(uintptr_t)from;
	fake.copy[fake.n].len = len;
	return (int)fake.n++;
}

static int
fake_submit(void *device, uint16_t vchan)
{
	(void)device;
	(void)vchan;
	return 0;
}

/* Three at a time. What fails leaves rubbish behind. */
static uint16_t
fake_completed(void *device, uint16_t vchan, const uint16_t most, uint16_t *last, enum rte_dma_status_code *status)
{
	uint16_t n = 0;

	(void)device;
	(void)vchan;
	for (; n < 3 && n < most && fake.done < fake.n && fake.done < fake.stops_at; n++, fake.done++) {
		bool failed = fake.fails != 0 && fake.done % fake.fails == 0;

		if (failed)
			memset(fake.copy[fake.done].to, 0xee, fake.copy[fake.done].len);
		else
			memcpy(fake.copy[fake.done].to, fake.copy[fake.done].from, fake.copy[fake.done].len);
		status[n] = failed ? RTE_DMA_STATUS_BUS_ERROR : RTE_DMA_STATUS_SUCCESSFUL;
		fake.made += !failed;
		*last = (uint16_t)fake.done;
	}
	if (fake.done == fake.n)
		fake.done = fake.n = 0;
	return n;
}

static struct chp_channel *
open_fake(uint32_t takes, uint32_t fails, uint32_t stops_at)
{
	struct chp_channel_error error = { 0 };
	struct chp_channel *ch = open_dma("dma_skeleton", &error);
	struct rte_dma_fp_object *ops = &rte_dma_fp_objs[rte_dma_get_dev_id_by_name("dma_skeleton")];

	cr_assert_not_null(ch, "%s", error.text);
	fake.takes = takes;
	fake.fails = fails;
	fake.stops_at = stops_at;
	ops->copy = fake_copy;
	ops->submit = fake_submit;
	ops->completed_status = fake_completed;
	return ch;
}

Test(channel_dma, what_the_device_fails_the_cpu_copies)
{
	struct chp_channel *ch = open_fake(CHP_CHANNEL_BURST, 5, CHP_CHANNEL_BURST);

	pass_bursts(ch, 20);
	cr_assert_eq(fake.made, 20 * 25);
	cr_assert_eq(chp_channel_counter(ch, CHP_CHANNEL_dma_copies), fake.made);
	chp_channel_close(ch);
}

Test(channel_dma, what_the_device_has_no_room_for_the_cpu_copies)
{
	struct chp_channel *ch = open_fake(20, 0, CHP_CHANNEL_BURST);

	pass_bursts(ch, 20);
	cr_assert_eq(chp_channel_counter(ch, CHP_CHANNEL_dma_copies), 20 * 20);
	chp_channel_close(ch);
}

Test(channel_dma, a_device_that_does_not_finish_is_used_no_more)
{
	struct chp_channel *ch = open_fake(CHP_CHANNEL_BURST, 0, 10);

	pass_bursts(ch, 5);
	cr_assert_eq(fake.made, 10);
	cr_assert_eq(chp_channel_counter(ch, CHP_CHANNEL_dma_copies), 10);
	chp_channel_close(ch);
}

/* ------------------------------------------------------------------ two processes */

/* The other process: it sends back what it receives, until it is killed. */
static void
echo(const char *vdev, const char *port, bool is_host, bool huge)
{
	struct chp_channel_error error;
	struct chp_channel *ch;

	if (!start_eal(vdev, huge) || (ch = try_open(port, is_host, &error)) == NULL)
		_exit(3);
	for (;;) {
		struct chp_channel_packet p[CHP_CHANNEL_BURST];
		uint32_t n = chp_channel_receive(ch, p, CHP_CHANNEL_BURST);

		if (n == 0)
			usleep(50);
		(void)chp_channel_send(ch, p, n);
		chp_channel_release(ch, p, n);
	}
}

/*
 * A process with EAL cannot fork one that wants EAL, too. So one is forked before that only forks. It is asked with a
 * byte: anything but 0 starts the other process, 0 kills the last.
 */
static int
start_forker(const char *vdev, const char *port, bool is_host, bool huge)
{
	int fd[2];

	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
	if (fork() == 0) {
		pid_t pid = 0;
		char c;

		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		while (read(fd[1], &c, 1) == 1) {
			if (c == 0) {
				(void)kill(pid, SIGKILL);
				(void)waitpid(pid, NULL, 0);
			} else if ((pid = fork()) == 0) {
				(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
				close(fd[0]);
				close(fd[1]);
				echo(vdev, port, is_host, huge);
			}
			if (write(fd[1], &c, 1) != 1)
				break;
		}
		(void)kill(pid, SIGKILL);
		_exit(0);
	}
	close(fd[1]);
	return fd[0];
}

static void
ask_forker(int fd, char c)
{
	cr_assert_eq(write(fd, &c, 1), 1);
	cr_assert_eq(read(fd, &c, 1), 1);
}

/* Send numbers until `want` of those of this round came back. What is lost is made good by others, as links do. */
static void
exchange(struct chp_channel *ch, uint32_t round, uint32_t want)
{
	static uint8_t data[CHP_CHANNEL_BURST][PAYLOAD];
	struct chp_channel_packet p[CHP_CHANNEL_BURST];
	uint64_t until_ns = now_ns() + WAIT_NS;
	uint32_t next = 0, got = 0;

	while (got < want) {
		uint32_t n = 0, number[2];

		cr_assert_lt(now_ns(), until_ns, "round %u: %u of %u", round, got, want);
		for (; n < 8; n++) {
			number[0] = round;
			number[1] = next + n;
			memset(data[n], (int)number[1], PAYLOAD);
			memcpy(data[n], number, sizeof(number));
			p[n] = packet_of(data[n], PAYLOAD);
		}
		next += chp_channel_send(ch, p, n);
		n = chp_channel_receive(ch, p, CHP_CHANNEL_BURST);
		for (uint32_t i = 0; i < n; i++) {
			cr_assert_eq(p[i].len, PAYLOAD);
			memcpy(number, p[i].data, sizeof(number));
			cr_assert_eq(p[i].data[PAYLOAD - 1], (uint8_t)number[1]);
			got += number[0] == round;
		}
		chp_channel_release(ch, p, n);
		if (n == 0)
			usleep(50);
	}
}

/* Go on to send until the channel says that the other end is gone. */
static void
expect_down(struct chp_channel *ch)
{
	static uint8_t data[PAYLOAD];
	struct chp_channel_packet p = packet_of(data, PAYLOAD), got[CHP_CHANNEL_BURST];
	uint64_t until_ns = now_ns() + WAIT_NS;

	while (chp_channel_state(ch, NULL) != CHP_CHANNEL_DOWN) {
		cr_assert_lt(now_ns(), until_ns);
		(void)chp_channel_send(ch, &p, 1);
		chp_channel_release(ch, got, chp_channel_receive(ch, got, CHP_CHANNEL_BURST));
	}
}

/*
 * This process is one end, with `own` for a device, and the other end is killed again and again under load. A front
 * end that is the server waits in rte_eal_init for the other one.
 */
static void
survive(const char *own, const char *own_port, const char *other, const char *other_port, bool is_host, bool huge)
{
	char dir[] = "/tmp/chaapar-channel-XXXXXX", mine[128], theirs[128], path[64];
	struct chp_channel_packet p;
	struct chp_channel *ch;
	uint64_t drops = 0;
	int forker;

	cr_assert_not_null(mkdtemp(dir));
	(void)snprintf(path, sizeof(path), "%s/s", dir);
	(void)snprintf(mine, sizeof(mine), own, path);
	(void)snprintf(theirs, sizeof(theirs), other, path);
	forker = start_forker(theirs, other_port, !is_host, huge);
	ask_forker(forker, 1);
	cr_assert(start_eal(mine, huge));
	ch = open_end(own_port, is_host);
	for (uint32_t round = 0; round <= KILLS; round++) {
		exchange(ch, round, 2000);
		if (round == KILLS)
			break;
		ask_forker(forker, 0);
		expect_down(ch);
		cr_assert_gt(chp_channel_counter(ch, CHP_CHANNEL_downs), round);
		p = packet_of(dir, 1);
		cr_assert_eq(chp_channel_send(ch, &p, 1), 1);
		cr_assert_gt(chp_channel_counter(ch, CHP_CHANNEL_drop_tx_down), drops);
		drops = chp_channel_counter(ch, CHP_CHANNEL_drop_tx_down);
		if (strstr(other, "server=1") != NULL)
			cr_assert_eq(unlink(path), 0); /* left behind, and in the way of the next */
		ask_forker(forker, 1);
	}
	cr_assert_eq(chp_channel_counter(ch, CHP_CHANNEL_downs), KILLS);
	ask_forker(forker, 0);
	chp_channel_close(ch);
	(void)unlink(path);
	(void)rmdir(dir);
}

#define FRONT "net_virtio_user0,path=%s,server=1,queue_size=1024,in_order=1,mrg_rxbuf=0"
#define BACK "net_vhost0,iface=%s,client=1"

/*
 * A channel that was closed takes everything with it: rte_eal_cleanup closes devices, whose queues must not know mbufs
 * any more. Their memory is somebody else's by then.
 */
Test(channel_vhost, nothing_of_a_closed_channel_is_touched_when_EAL_ends)
{
	char dir[] = "/tmp/chaapar-channel-XXXXXX", mine[160], theirs[160], path[64];
	struct chp_channel *ch;
	int forker;

	cr_assert_not_null(mkdtemp(dir));
	(void)snprintf(path, sizeof(path), "%s/s", dir);
	(void)snprintf(mine, sizeof(mine), FRONT, path);
	(void)snprintf(theirs, sizeof(theirs), BACK, path);
	forker = start_forker(theirs, "net_vhost0", false, false);
	ask_forker(forker, 1);
	cr_assert(start_eal(mine, false));
	ch = open_end("net_virtio_user0", true);
	exchange(ch, 0, 200);
	chp_channel_close(ch);
	/* An mbuf of such bytes has one owner, and a pool that is nowhere. */
	for (uint16_t *m; (m = rte_malloc(NULL, 4096, 0)) != NULL;) {
		for (uint32_t i = 0; i < 2048; i++)
			m[i] = 1;
	}
	(void)rte_eal_cleanup();
	ask_forker(forker, 0);
	(void)unlink(path);
	(void)rmdir(dir);
}

/* ------------------------------------------------------------------ closed while DPDK's interrupt thread is at it */

/* What the interrupt thread runs, in place of what takes it long on a busy machine. */
static struct {
	sem_t began, closed;
} held;

/* Until the channel is closed, if whoever closes it does not wait for this. */
static void
hold(void *argument)
{
	struct timespec until;

	(void)argument;
	(void)clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 1;
	(void)sem_post(&held.began);
	while (sem_timedwait(&held.closed, &until) != 0 && errno == EINTR)
		;
}

static int
hold_event(uint16_t port, enum rte_eth_event_type event, void *argument, void *more)
{
	(void)port;
	(void)event;
	(void)more;
	hold(argument);
	return 0;
}

static void
say_ended(void *argument)
{
	(void)sem_post(argument);
}

/* The other end dies, and this one is closed while the interrupt thread holds: at an alarm, or at what comes of it. */
static void
close_beside(bool at_event)
{
	char dir[] = "/tmp/chaapar-channel-XXXXXX", mine[160], theirs[160], path[64];
	struct chp_channel *ch;
	uint16_t id = 0;
	sem_t ended;
	int forker;

	cr_assert_not_null(mkdtemp(dir));
	(void)snprintf(path, sizeof(path), "%s/s", dir);
	(void)snprintf(mine, sizeof(mine), FRONT, path);
	(void)snprintf(theirs, sizeof(theirs), BACK, path);
	(void)sem_init(&held.began, 0, 0);
	(void)sem_init(&held.closed, 0, 0);
	(void)sem_init(&ended, 0, 0);
	forker = start_forker(theirs, "net_vhost0", false, false);
	ask_forker(forker, 1);
	cr_assert(start_eal(mine, false));
	ch = open_end("net_virtio_user0", true);
	exchange(ch, 0, 200);
	cr_assert_eq(rte_eth_dev_get_port_by_name("net_virtio_user0", &id), 0);
	if (at_event)
		cr_assert_eq(rte_eth_dev_callback_register(id, RTE_ETH_EVENT_INTR_LSC, hold_event, NULL), 0);
	else
		cr_assert_eq(rte_eal_alarm_set(1, hold, NULL), 0);
	if (!at_event)
		cr_assert_eq(sem_wait(&held.began), 0);
	ask_forker(forker, 0);
	if (at_event)
		cr_assert_eq(sem_wait(&held.began), 0);
	chp_channel_close(ch);
	(void)sem_post(&held.closed);
	/* Whatever the thread had to do yet, it has done, and is there. */
	for (uint32_t i = 0; i < 3; i++) {
		cr_assert_eq(rte_eal_alarm_set(1000, say_ended, &ended), 0);
		cr_assert_eq(sem_wait(&ended), 0);
	}
	(void)rte_eal_cleanup();
	(void)unlink(path);
	(void)rmdir(dir);
}

Test(channel_vhost, an_end_is_closed_whose_other_end_died_unseen, .timeout = 120)
{
	(void)signal(SIGPIPE, SIG_DFL);
	close_beside(false);
}

Test(channel_vhost, an_end_is_closed_while_the_death_of_the_other_is_handled, .timeout = 120)
{
	close_beside(true);
}

static void
need_hugepages(void)
{
	FILE *f = fopen("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "r");
	int n = 0;

	if (f == NULL || fscanf(f, "%d", &n) != 1 || n < 300)
		cr_skip_test("300 free hugepages of 2 MiB are needed, there are %d", n);
	(void)fclose(f);
}

Test(channel_vhost, the_front_end_survives_its_back_end)
{
	survive(FRONT, "net_virtio_user0", BACK, "net_vhost0", true, false);
}

Test(channel_vhost, the_back_end_survives_its_front_end)
{
	survive(BACK, "net_vhost0", FRONT, "net_virtio_user0", false, false);
}

Test(channel_vhost, the_front_end_survives_its_back_end_with_hugepages)
{
	need_hugepages();
	survive(FRONT, "net_virtio_user0", BACK, "net_vhost0", true, true);
}

Test(channel_vhost, the_back_end_survives_its_front_end_with_hugepages)
{
	need_hugepages();
	survive(BACK, "net_vhost0", FRONT, "net_virtio_user0", false, true);
}
