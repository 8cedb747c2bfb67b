/* SPDX-License-Identifier: BSD-3-Clause */
#include "ctl.h"

#include "base/bytes.h"
#include "config/config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The names are only checked here: the tool talks to any protocol's replicas alike. */
static const char *const protocols[] = { "hermes", "zab", NULL };
static const char *const applications[] = { "store", "sequencer", NULL };

static int
read_cluster(struct ctl *ctl)
{
	static struct chp_cluster_config config;
	static struct chp_config_errors errors;
	size_t len, room;
	char *text = chp_config_read_file(ctl->cluster_file, &len, &errors), *at;
	bool ok = text != NULL && chp_cluster_config_parse(text, len, ctl->cluster_file, protocols,
							   applications, &config, &errors);

	free(text);
	if (!ok) {
		for (uint32_t i = 0; i < errors.n && i < CHP_CONFIG_ERRORS_MAX; i++)
			fprintf(stderr, "%s\n", errors.text[i]);
		return CTL_USAGE;
	}
	room = config.n_members * sizeof("255.255.255.255:65535,");
	at = ctl->from_cluster = malloc(room);
	if (at == NULL)
		return ctl_fail(ctl, CTL_ERROR, "out of memory");
	for (uint32_t i = 0; i < config.n_members; i++) {
		uint32_t a = config.member[i].address;
		uint32_t port = config.port_base + chp_pow2_up(config.shards);

		at += snprintf(at, room - (size_t)(at - ctl->from_cluster), "%s%u.%u.%u.%u:%u",
			       i > 0 ? "," : "", a >> 24, a >> 16 & 255, a >> 8 & 255, a & 255,
			       port);
	}
	ctl->endpoints = ctl->from_cluster;
	return CTL_OK;
}

int
ctl_find_endpoints(struct ctl *ctl)
{
	if (ctl->endpoints != NULL)
		return CTL_OK;
	if (ctl->cluster_file != NULL)
		return read_cluster(ctl);
	ctl->endpoints = getenv("CHAAPAR_ENDPOINTS");
	if (ctl->endpoints == NULL || ctl->endpoints[0] == '\0')
		return ctl_usage(ctl, "where is the cluster? Give --endpoints HOST[:PORT],... or "
				      "--cluster FILE, or set CHAAPAR_ENDPOINTS");
	return CTL_OK;
}

int
ctl_open_failed(const struct ctl *ctl, int err)
{
	switch (err) {
	case -ETIMEDOUT:
		return ctl_fail(
			ctl, CTL_NO_ANSWER,
			"no answer from %s within %u ms: are the replicas running, and is that "
			"their control port (port_base + shards rounded up to a power of two)?",
			ctl->endpoints, ctl->timeout_ms);
	case -EPROTO:
		return ctl_fail(ctl, CTL_ERROR,
				"what answers at %s is no control port of a replica that "
				"this version understands",
				ctl->endpoints);
	case -EINVAL:
		return ctl_usage(ctl, "endpoints: expected HOST[:PORT],..., not \"%s\"",
				 ctl->endpoints);
	case -ENOENT:
		if (ctl->node != CHAAPAR_ANY_NODE)
			return ctl_fail(ctl, CTL_USAGE,
					"%s: a name is not known, or the cluster has no "
					"node %d",
					ctl->endpoints, ctl->node);
		return ctl_fail(ctl, CTL_USAGE, "%s: a name is not known", ctl->endpoints);
	default:
		return ctl_fail(ctl, CTL_ERROR, "%s: %s", ctl->endpoints, chaapar_strerror(err));
	}
}

int
ctl_connect(struct ctl *ctl)
{
	return ctl_connect_within(ctl, CTL_TIMEOUT_MS);
}

int
ctl_connect_within(struct ctl *ctl, uint32_t timeout_ms)
{
	struct chaapar_options o = CHAAPAR_OPTIONS_INIT;
	int err, code = ctl_find_endpoints(ctl);

	if (ctl->timeout_ms == 0)
		ctl->timeout_ms = timeout_ms;
	if (code != CTL_OK)
		return code;
	o.node = ctl->node;
	o.only_node = ctl->node != CHAAPAR_ANY_NODE;
	o.timeout_ms = ctl->timeout_ms;
	ctl->c = chaapar_open(ctl->endpoints, &o, &err);
	return ctl->c != NULL ? CTL_OK : ctl_open_failed(ctl, err);
}

const char *
ctl_member_name(const struct chaapar_info *info, int node)
{
	for (uint32_t i = 0; i < info->n_members; i++) {
		if (node >= 0 && info->member[i].id == (uint32_t)node)
			return info->member[i].name;
	}
	return "?";
}
