/* SPDX-License-Identifier: BSD-3-Clause */
#include "eal.h"

#include "base/bytes.h"
#include "channel/transports.h"

#include <rte_eal.h>

#include <stdio.h>

bool
eal_start(const char *vdev)
{
	const char *words[] = { "test", "-l", "0", "--no-pci", "--no-telemetry", "--iova-mode=va", "-m", "256",
				"--log-level=*:emerg", "--no-huge", "--no-shconf", "--vdev", vdev };
	static char copy[CHP_ARRAY_LEN(words)][256];
	char *argv[CHP_ARRAY_LEN(words) + 1] = { NULL };
	int argc = (int)CHP_ARRAY_LEN(words) - (vdev == NULL ? 2 : 0);

	for (int i = 0; i < argc; i++) {
		(void)snprintf(copy[i], sizeof(copy[i]), "%s", words[i]);
		argv[i] = copy[i];
	}
	return rte_eal_init(argc, argv) >= 0;
}

struct chp_channel *
eal_open(const char *port, bool is_host, uint32_t payload_bytes_max)
{
	const struct chp_channel_config config = {
		.is_host = is_host,
		.payload_bytes_max = payload_bytes_max,
		.name = is_host ? "host" : "replica",
		.port = port,
	};
	struct chp_channel_error error = { 0 };
	struct chp_channel *ch = chp_channel_port.open(&config, &error);

	if (ch == NULL)
		(void)fprintf(stderr, "%s\n", error.text);
	return ch;
}
