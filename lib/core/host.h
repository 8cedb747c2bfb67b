/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * host.h - the shard's end of the channel to its host: write-behind, loads, scans (paper 5.2; SAFETY 29-33).
 *
 * Part of a shard. It finds its host with HELLOs, keeps a reliable link to it (core/link.h), sends it what the log has
 * committed, moves the log's durability mark by what the host reports, and asks it for keys on behalf of the protocol.
 *
 * Write-behind. What is sent is a prefix of the log: positions in order, up to the first that is not committed (with
 * level `datastore`: up to the end). A batch is a run of positions, closed by count, bytes or age. Within it only the
 * newest entry of a key is sent (SAFETY 30): the batch becomes durable as a whole, so no position is passed before its
 * key's version, or a newer one, is. Sessions and entries without a key are not sent. When the host or the channel
 * comes back, everything from the mark on is sent again; the store skips what it has.
 *
 * Pure: time is an argument, packets are written into the caller's buffers. Owner: the shard's lcore.
 */
#ifndef CHP_CORE_HOST_H
#define CHP_CORE_HOST_H

#include "core/link.h"
#include "protocols/protocol.h"
#include "wire/host.h"

enum chp_host_state_of_link {
	CHP_HOST_NONE = 0,  /* this cluster has no hosts */
	CHP_HOST_AWAY,      /* no answer: HELLOs go out */
	CHP_HOST_REFUSES,   /* it answers with REFUSED: text says why */
	CHP_HOST_WAITING,   /* welcomed; this shard has no view yet, or its life begins in the store */
	CHP_HOST_READY,
	CHP_HOST_LOST_DATA, /* welcomed by a store that holds less than it had reported durable (SAFETY 29) */
};

#define CHP_HOST_COUNTERS(X)                                                                     \
	X(puts, "versions sent to the host")                                                     \
	X(coalesced, "versions not sent because a newer one of their key was in the same batch") \
	X(batches, "batches sent")                                                               \
	X(bytes, "bytes of versions sent")                                                       \
	X(batches_by_count, "batches closed by count")                                           \
	X(batches_by_bytes, "batches closed by bytes")                                           \
	X(batches_by_age, "batches closed by age")                                               \
	X(durable, "batches that the host reported durable")                                     \
	X(loads, "keys asked for")                                                               \
	X(loads_found, "of those, found")                                                        \
	X(loads_failed, "of those, that the store could not read")                               \
	X(loads_refused, "keys not asked for because too many loads were open")                  \
	X(scans, "parts of scans asked for")                                                     \
	X(items, "items of scans received")                                                      \
	X(hellos, "HELLOs sent")                                                                 \
	X(welcomes, "times the host welcomed this shard")                                        \
	X(refusals, "times the host refused this shard")                                         \
	X(resends, "times everything that was not durable was sent again")                       \
	X(stale, "answers to what was not asked, or asked before the channel was lost")          \
	X(bad_message, "messages that were not well-formed")

struct chp_host_counters {
#define CHP_COUNTER_FIELD(name, help) uint64_t name;
	CHP_HOST_COUNTERS(CHP_COUNTER_FIELD)
#undef CHP_COUNTER_FIELD
};

/* How the host is: for status, and for who decides whether this replica stays in the view (SAFETY 32). */
struct chp_host_status {
	enum chp_host_state_of_link state;
	uint32_t store_state;       /* enum chp_store_state */
	uint32_t store_flags;       /* enum chp_store_flag */
	uint64_t away_ns;           /* for how long it has not been READY with a store that is not DOWN; 0 = it is */
	uint64_t backlog;           /* log positions committed and not durable */
	uint64_t oldest_ns;         /* age of the oldest of them */
	uint64_t log_fill_ppm;      /* entries in use */
	uint64_t epoch;             /* recorded in the store */
	uint64_t life, newest, items, tombstones, errors;
	bool has_record;            /* the store has been welcomed in this process: epoch says what it holds */
	char text[CHP_HOST_TEXT_BYTES]; /* why it is not READY or not OK; else the name of the store */
};

#endif /* CHP_CORE_HOST_H */
