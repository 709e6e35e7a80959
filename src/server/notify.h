/* SPDX-License-Identifier: Apache-2.0 */
/** @file notify.h  The service manager's protocol: a datagram to $NOTIFY_SOCKET. */
#ifndef QN_SERVER_NOTIFY_H
#define QN_SERVER_NOTIFY_H

/**
 * Tell systemd, where it listens: "READY=1", "STOPPING=1", "WATCHDOG=1", "WATCHDOG=trigger",
 * "STATUS=...".  Without NOTIFY_SOCKET nothing happens; failures are not the server's.  Any thread.
 * Source   sd_notify(3), "Notes": the protocol is stable
 */
void server_notify(const char *state);
#endif
