/* SPDX-License-Identifier: BSD-3-Clause */
/* A machine without RDMA says so, in one line. The conformance suite over RDMA is tools/check-rdma's. */
#include "channel/transports.h"

#include <criterion/criterion.h>
#include <infiniband/verbs.h>
#include <string.h>

static struct chp_channel_config
config_of(bool is_host)
{
	return (struct chp_channel_config){
		.is_host = is_host,
		.payload_bytes_max = CHP_PAYLOAD_BYTES_MIN,
		.name = "test",
		.address = 0x0a010101,
		.service = 7471,
	};
}

Test(no_rdma, a_machine_without_a_device_says_so)
{
	struct chp_channel_error error;
	int n = 0;
	struct ibv_device **list = ibv_get_device_list(&n);

	if (list != NULL)
		ibv_free_device_list(list);
	if (n > 0)
		cr_skip_test("this machine has %d RDMA devices", n);
	for (uint32_t i = 0; i < 2; i++) {
		struct chp_channel_config config = config_of(i == 1);

		cr_assert_null(chp_channel_rdma.open(&config, &error));
		cr_assert_not_null(strstr(error.text, "no RDMA device on this machine"), "%s", error.text);
		cr_assert_not(error.is_usage);
	}
}

Test(no_rdma, what_cannot_be_is_refused_before_any_device_is_looked_for)
{
	struct chp_channel_error error;
	struct chp_channel_config config = config_of(false);

	config.ring = 1000;
	cr_assert_null(chp_channel_rdma.open(&config, &error));
	cr_assert(error.is_usage && strstr(error.text, "a power of two") != NULL, "%s", error.text);
	config = config_of(false);
	config.service = 0;
	cr_assert_null(chp_channel_rdma.open(&config, &error));
	cr_assert(error.is_usage && strstr(error.text, "a service from 1 to 65535") != NULL, "%s", error.text);
	config = config_of(true);
	config.address = 0;
	cr_assert_null(chp_channel_rdma.open(&config, &error));
	cr_assert(error.is_usage && strstr(error.text, "the replica's address") != NULL, "%s", error.text);
	cr_assert_eq(chp_channel_find("rdma"), &chp_channel_rdma);
}
