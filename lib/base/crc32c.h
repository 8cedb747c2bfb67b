/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * crc32c.h - CRC-32C (Castagnoli), by the CPU's instruction where it has one.
 */
#ifndef CHP_BASE_CRC32C_H
#define CHP_BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/**
 * CRC-32C of len bytes at any alignment, continued from crc (0 to start).
 * chp_crc32c("123456789", 9, 0) is 0xe3069283. Pure; any thread.
 */
uint32_t chp_crc32c(const void *data, size_t len, uint32_t crc);

/** The same by table only: the reference that tests compare with. */
uint32_t chp_crc32c_portable(const void *data, size_t len, uint32_t crc);

#endif /* CHP_BASE_CRC32C_H */
