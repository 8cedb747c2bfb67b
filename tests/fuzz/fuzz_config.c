/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Both configuration files. The input is a cluster file, a zero byte, a node file; without the
 * zero byte the node file is checked against a cluster that is right. What parses must print to
 * something that parses to the same; what does not must say why.
 */
#include "base/assert.h"
#include "config/config.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const protocols[] = { "hermes", "zab", NULL };
static const char *const applications[] = { "store", NULL };
static const char right[] =
	"{\"name\":\"c\",\"protocol\":\"hermes\",\"members\":["
	"{\"name\":\"a\",\"address\":\"10.0.0.1\"},{\"name\":\"b\",\"address\":\"10.0.0.2\"}]}";
static struct chp_config_errors errors;

static void
check_errors(void)
{
	CHP_ASSERT_OP(errors.n, >, 0u);
	for (uint32_t i = 0; i < errors.n && i < CHP_CONFIG_ERRORS_MAX; i++) {
		CHP_ASSERT(memchr(errors.text[i], 0, CHP_CONFIG_ERROR_BYTES) != NULL);
		CHP_ASSERT(strchr(errors.text[i], '\n') == NULL);
	}
}

static bool
parse_cluster(const char *text, size_t len, struct chp_cluster_config *c)
{
	static struct chp_cluster_config again;
	char *printed;

	memset(&errors, 0, sizeof(errors));
	memset(c, 0, sizeof(*c));
	if (!chp_cluster_config_parse(text, len, "cluster.json", protocols, applications, c, &errors)) {
		check_errors();
		return false;
	}
	CHP_ASSERT_OP(errors.n, ==, 0u);
	printed = chp_cluster_config_print(c);
	CHP_ASSERT(printed != NULL);
	memset(&again, 0, sizeof(again));
	CHP_ASSERT(chp_cluster_config_parse(printed, strlen(printed), "again", protocols, applications, &again,
					    &errors));
	CHP_ASSERT_OP(again.hash, ==, c->hash);
	CHP_ASSERT_OP(again.n_members, ==, c->n_members);
	free(printed);
	return true;
}

static void
parse_node(const char *text, size_t len, const struct chp_cluster_config *c)
{
	static struct chp_node_config n, again;
	char *printed, *printed_again;

	memset(&errors, 0, sizeof(errors));
	memset(&n, 0, sizeof(n));
	if (!chp_node_config_parse(text, len, "node.json", c, &n, &errors)) {
		check_errors();
		return;
	}
	CHP_ASSERT_OP(errors.n, ==, 0u);
	printed = chp_node_config_print(&n, c);
	CHP_ASSERT(printed != NULL);
	memset(&again, 0, sizeof(again));
	CHP_ASSERT(chp_node_config_parse(printed, strlen(printed), "again", c, &again, &errors));
	printed_again = chp_node_config_print(&again, c);
	CHP_ASSERT(printed_again != NULL && strcmp(printed, printed_again) == 0);
	free(printed);
	free(printed_again);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct chp_cluster_config cluster;
	const uint8_t *zero = size == 0 ? NULL : memchr(data, 0, size);
	size_t cluster_len = zero == NULL ? 0 : (size_t)(zero - data);
	char *text = malloc(size + 1); /* of exactly this size: ASan sees a byte read too far */

	CHP_ASSERT(text != NULL);
	if (size > 0)
		memcpy(text, data, size);
	if (zero != NULL) {
		if (parse_cluster(text, cluster_len, &cluster))
			parse_node(text + cluster_len + 1, size - cluster_len - 1, &cluster);
	} else {
		parse_cluster(text, size, &cluster);
		if (parse_cluster(right, sizeof(right) - 1, &cluster))
			parse_node(text, size, &cluster);
	}
	free(text);
	return 0;
}
