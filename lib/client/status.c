/* SPDX-License-Identifier: BSD-3-Clause */
#include "client/internal.h"

#include <string.h>

#define SAME(name) \
	_Static_assert((int)CHAAPAR_##name == (int)CHP_STATUS_##name, "the numbers are the wire's")
SAME(OK);
SAME(NOT_FOUND);
SAME(EXISTS);
SAME(COMPARE_FAILED);
SAME(NOT_NUMBER);
SAME(TOO_LARGE);
SAME(BAD_KEY);
SAME(BAD_REQUEST);
SAME(UNKNOWN_OP);
SAME(WRONG_SHARD);
SAME(BUSY);
SAME(OVERLOAD);
SAME(FULL);
SAME(SESSION_UNKNOWN);
SAME(SESSION_WINDOW);
SAME(SESSIONS_FULL);
SAME(REDIRECT);
SAME(NOT_SERVING);
_Static_assert((int)CHAAPAR_UNKNOWN == (int)CHP_STATUS_UNKNOWN_OUTCOME,
	       "the numbers are the wire's");
_Static_assert((int)CHP_STATUS_COUNT <= (int)CHAAPAR_TIMEOUT, "the library's own begin above");

static const char *const text[] = {
	[CHAAPAR_OK] = "done",
	[CHAAPAR_NOT_FOUND] = "the key does not exist",
	[CHAAPAR_EXISTS] = "the key exists already",
	[CHAAPAR_COMPARE_FAILED] = "the key has another version",
	[CHAAPAR_NOT_NUMBER] = "the value is not an unsigned 64-bit decimal number",
	[CHAAPAR_TOO_LARGE] = "the value is larger than the cluster allows",
	[CHAAPAR_BAD_KEY] = "the key is empty or longer than the cluster allows",
	[CHAAPAR_BAD_REQUEST] = "the replica did not understand the request",
	[CHAAPAR_UNKNOWN_OP] = "the replica does not know this operation",
	[CHAAPAR_WRONG_SHARD] = "client and replicas disagree about the key's shard",
	[CHAAPAR_BUSY] = "the replica has no room for the operation now; it was not applied",
	[CHAAPAR_OVERLOAD] = "the replica gets more requests than it can look at",
	[CHAAPAR_FULL] = "the data cache is full; the operation was not applied",
	[CHAAPAR_SESSION_UNKNOWN] = "the session expired",
	[CHAAPAR_SESSION_WINDOW] = "more requests in flight than the session's window",
	[CHAAPAR_SESSIONS_FULL] = "the cluster has no room for another session",
	[CHAAPAR_UNKNOWN] =
		"the outcome is not known: the operation may or may not have been applied",
	[CHAAPAR_REDIRECT] = "another replica is responsible",
	[CHAAPAR_NOT_SERVING] = "the replica is not serving",
	[CHAAPAR_TIMEOUT] = "no answer in time; a write may or may not have been applied",
	[CHAAPAR_CLOSED] = "the handle was closed before the answer came",
	[CHAAPAR_UNSENT] = "the time was up before the request could be sent; it was not applied",
	[CHAAPAR_NO_MEMORY] = "out of memory",
	[CHAAPAR_BAD_CALL] = "called inside a callback",
};

const char *
chaapar_strerror(int status_or_errno)
{
	const char *s;

	if (status_or_errno < 0) {
		s = strerrordesc_np(-status_or_errno);
		return s != NULL ? s : "unknown error";
	}
	s = (size_t)status_or_errno < CHP_ARRAY_LEN(text) ? text[status_or_errno] : NULL;
	return s != NULL ? s : "a status that this version does not know";
}

const char *
chaapar_status_name(enum chaapar_status status)
{
	switch (status) {
	case CHAAPAR_TIMEOUT:
		return "timeout";
	case CHAAPAR_CLOSED:
		return "closed";
	case CHAAPAR_UNSENT:
		return "unsent";
	case CHAAPAR_NO_MEMORY:
		return "no_memory";
	case CHAAPAR_BAD_CALL:
		return "bad_call";
	default:
		return chp_status_name((uint32_t)status);
	}
}

bool
chaapar_outcome_unknown(enum chaapar_status status)
{
	return status == CHAAPAR_UNKNOWN || status == CHAAPAR_TIMEOUT || status == CHAAPAR_CLOSED;
}
