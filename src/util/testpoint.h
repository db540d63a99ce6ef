/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * util/testpoint.h: places where a test may kill the process.
 *
 * A backup must survive `kill -9` between any two of its steps, so every step that changes
 * something outside the process (a command to QEMU, a file made, renamed or removed) passes a test
 * point before and after it. With TIDEMARK_TEST_KILL_AT=N in the environment the N-th point passed
 * kills the process with SIGKILL; with TIDEMARK_TEST_TRACE set each point is printed to stderr.
 * Without either a point is one load and one branch.
 */
#pragma once

void testpoint (const char *name);

/* None any more in this process: a child that puts right what a killed one left. */
void testpoint_disarm (void);
