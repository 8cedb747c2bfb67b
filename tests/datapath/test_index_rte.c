/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_index_rte.c - the shipped index, on rte_hash, meets what every index must, and a cache on it
 * agrees with a model. Each test is a process of its own and starts EAL without hugepages.
 */
#include "cache/cache.h"
#include "../support/cache_model.h"
#include "../support/index_conformance.h"

#include <criterion/criterion.h>
#include <rte_eal.h>
#include <rte_hash.h>
#include <rte_malloc.h>
#include <stdlib.h>
#include <string.h>

static void
start_eal(void)
{
	static char args[][24] = { "test_index_rte", "--no-huge", "--no-shconf", "--no-pci",
				   "--no-telemetry", "-m", "64", "--iova-mode=va", "-l", "0",
				   "--log-level=error" };
	char *argv[CHP_ARRAY_LEN(args) + 1];

	for (size_t i = 0; i < CHP_ARRAY_LEN(args); i++)
		argv[i] = args[i];
	argv[CHP_ARRAY_LEN(args)] = NULL;
	cr_assert_geq(rte_eal_init((int)CHP_ARRAY_LEN(args), argv), 0);
}

static void
stop_eal(void)
{
	rte_eal_cleanup();
}

TestSuite(index_rte, .init = start_eal, .fini = stop_eal);

static size_t
heap_bytes(void)
{
	struct rte_malloc_socket_stats stats;

	cr_assert_eq(rte_malloc_get_socket_stats(0, &stats), 0);
	return stats.heap_allocsz_bytes;
}

Test(index_rte, fills_to_the_last_entry)
{
	index_fill("fill", DIGEST_UNIFORM, 8);
	index_fill("fill", DIGEST_UNIFORM, 100);
	index_fill("fill", DIGEST_UNIFORM, 513);
	index_fill("fill", DIGEST_UNIFORM, 1 << 16);
	index_fill("fill", DIGEST_UNIFORM, (1 << 16) + 1);
}

/* One chain of overflow buckets takes everything. */
Test(index_rte, fills_though_all_digests_meet_in_one_bucket)
{
	for (enum digest_kind kind = DIGEST_LOW_BITS_EQUAL; kind < DIGEST_KINDS; kind++) {
		index_fill("fill", kind, 8);
		index_fill("fill", kind, 9);
		index_fill("fill", kind, 64);
		index_fill("fill", kind, 513);
	}
}

Test(index_rte, churns)
{
	for (enum digest_kind kind = 0; kind < DIGEST_KINDS; kind++) {
		index_churn("churn", kind, 8, 2000, 1);
		index_churn("churn", kind, 300, 20000, 2);
	}
	index_churn("churn", DIGEST_UNIFORM, 4096, 200000, 3);
}

Test(index_rte, refuses_bad_sizes)
{
	index_refusals();
}

Test(index_rte, a_name_is_used_once)
{
	int err = 0;
	struct chp_index *x = chp_index_create("same", 100, &err);

	cr_assert_not_null(x);
	cr_assert_null(chp_index_create("same", 100, &err));
	cr_assert_eq(err, -EINVAL);
	chp_index_destroy(x);
	x = chp_index_create("same", 100, &err);
	cr_assert_not_null(x, "free again");
	chp_index_destroy(x);
}

Test(index_rte, too_little_memory_is_an_error_and_leaves_nothing)
{
	struct chp_cache_config config = {
		.name = "large",
		.keys_max = 4 << 20,
		.value_blocks_max = 10,
		.headroom = 1,
		.memory = &chp_memory_libc,
	};
	size_t before = heap_bytes();
	int err = 0;

	cr_assert_null(chp_index_create("large", 4 << 20, &err), "of 64 MiB");
	cr_assert_eq(err, -ENOMEM);
	err = 0;
	cr_assert_null(chp_cache_create(&config, &err));
	cr_assert_eq(err, -ENOMEM);
	cr_assert_eq(heap_bytes(), before);
}

/* What --print-config says of memory: within a tenth of what rte_hash takes. */
Test(index_rte, memory_is_as_announced)
{
	static const uint32_t keys[] = { 10000, 65534, 65536, 100000 };

	for (uint32_t i = 0; i < CHP_ARRAY_LEN(keys); i++) {
		struct chp_cache_config config = {
			.name = "announced",
			.keys_max = keys[i],
			.value_blocks_max = 10,
			.memory = &chp_memory_libc,
		};
		size_t before = heap_bytes();
		int err = 0;
		struct chp_cache *c = chp_cache_create(&config, &err);

		cr_assert_not_null(c);
		size_t index = heap_bytes() - before;
		size_t announced = chp_cache_bytes(&config) - keys[i] * sizeof(struct chp_slot) -
				   10 * CHP_BLOCK_BYTES;

		cr_assert(announced > index * 9 / 10 && announced < index * 11 / 10,
			  "%u keys: %zu bytes announced, %zu taken", keys[i], announced, index);
		chp_cache_destroy(c);
	}
}

Test(index_rte, a_cache_agrees_with_a_model_with_room)
{
	for (uint64_t seed = 1; seed <= 4; seed++)
		cache_model_run("model", CACHE_MODEL_KEYS, 12 * CACHE_MODEL_KEYS, 4000, seed);
}

Test(index_rte, a_cache_agrees_with_a_model_when_full)
{
	for (uint64_t seed = 1; seed <= 4; seed++)
		cache_model_run("model", 100, 200, 4000, seed);
}
