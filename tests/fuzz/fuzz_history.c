/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Recorded histories: any text is read or refused with a line number; what was read is judged
 * within its limits, written and read again, and must be judged the same.
 */
#include "base/assert.h"
#include "history/linear.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
judge(const struct chp_history *h, struct chp_linear_report *report)
{
	static const struct chp_linear_limits limits = { .states_max = 2000, .bytes_max = 1 << 20 };

	CHP_ASSERT(chp_linear_check(h, &limits, report) == 0);
	CHP_ASSERT(memchr(report->text, 0, sizeof(report->text)) != NULL);
	CHP_ASSERT((report->verdict == CHP_LINEAR_OK) == (report->text[0] == '\0'));
}

static void
write_and_read_again(const struct chp_history *h, const struct chp_linear_report *before)
{
	static struct chp_linear_report after;
	struct chp_history_error error;
	struct chp_history again;
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);

	CHP_ASSERT(f != NULL);
	CHP_ASSERT(chp_history_write(h, f) == 0);
	CHP_ASSERT(fclose(f) == 0);
	chp_history_init(&again);
	CHP_ASSERT(chp_history_parse(&again, text, len, &error) == 0);
	CHP_ASSERT_OP(again.n_ops, ==, h->n_ops);
	judge(&again, &after);
	CHP_ASSERT_OP(after.verdict, ==, before->verdict);
	chp_history_fini(&again);
	free(text);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct chp_linear_report report;
	struct chp_history_error error = { 0 };
	struct chp_history h;
	char *text = malloc(size + 1);
	int e;

	CHP_ASSERT(text != NULL);
	if (size > 0)
		memcpy(text, data, size);
	chp_history_init(&h);
	e = chp_history_parse(&h, text, size, &error);
	if (e != 0)
		CHP_ASSERT(memchr(error.text, 0, sizeof(error.text)) != NULL);
	judge(&h, &report); /* also what stood before a faulty line */
	write_and_read_again(&h, &report);
	chp_history_fini(&h);
	free(text);
	return 0;
}
