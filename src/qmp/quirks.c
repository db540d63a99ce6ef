/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qmp/quirks.c: faults of some versions of QEMU that its schema does not show. This table is the
 * only place that compares versions.
 *
 * Found by experiment on QEMU 7.2.22 and 10.0.13. Nobody tried what lies between, so it counts as
 * having the fault until somebody does. A new row needs an experiment that shows the fault.
 */
#include "qmp/schema.h"

#define NEVER G_MAXUINT

typedef struct {
  unsigned fixed_in;      /* as qmp_client_version() */
  const char *experiment; /* how the fault was shown */
} Row;

static const Row table[] = {
  /* An NBD export of a node that lives in an iothread aborts QEMU when a client disconnects, in a
   * VM and in qemu-storage-daemon. There: no export from inside, push to an image instead. */
  [QUIRK_NBD_IOTHREAD_ABORT]
  = { 100000, "t11a: export a node of an iothread, read it five times with nbdcopy" },

  /* nbd-server-stop freezes guest and monitor while a client is connected that has not negotiated.
   * There: listen in a private folder only; where a foreign connection cannot be ruled out, delete
   * the exports, unlink the socket, wait out the handshake (10 s), then stop. */
  [QUIRK_NBD_STOP_FREEZE]
  = { 100000, "t11b, t11c: connect, say nothing, nbd-server-stop; t11d: the remedy" },

  /* snapshot-access returns wrong data after the guest wrote zeroes or discarded, and to clients
   * without structured replies. There: export the scratch overlay instead. */
  [QUIRK_SNAPSHOT_ACCESS_WRONG]
  = { 100000, "t16, t17: write, zero and discard under copy-before-write, compare the export" },

  /* blockdev-reopen of "file" aborts QEMU when it undoes a swap of children. There: put filters in
   * and out with qom-set of the device's "drive". */
  [QUIRK_REOPEN_UNDO_ABORT] = { 100000, "t4c: insert a filter by reopen, and undo it" },

  /* A classic blockdev-backup lets the guest feel its target: out of space pauses the guest or
   * gives it EIO, one that hangs or is slow stalls its writes. No version is free of it; where the
   * schema has blockdev-backup "on-cbw-error", it can be told to break the backup instead. */
  [QUIRK_CBW_ERROR_REACHES_GUEST]
  = { NEVER, "t4: a guest writes while scratch or target is full, and while it hangs" },

  /* nbd-server-stop freezes guest and monitor for good while a client is within the TLS handshake:
   * what would end it is not looked at while the server waits. There: as QUIRK_NBD_STOP_FREEZE. */
  [QUIRK_NBD_TLS_STOP_FREEZE]
  = { NEVER, "tests/functional/test-pull-tls.py: ask for TLS, say nothing more, nbd-server-stop" },

  /* While blockdev-create opens the qcow2 image that it makes, query-named-block-nodes by another
   * client aborts QEMU: the node is there, and its version not yet read. There: qemu-img makes it
   * (blockdev-add is safe, for nothing else is done meanwhile). */
  [QUIRK_CREATE_ABORT]
  = { 100000, "tests/functional/test-backup-meanwhile.py: list all nodes all the time" },
};

bool
qmp_has_quirk (unsigned version, QmpQuirk quirk)
{
  g_return_val_if_fail ((size_t) quirk < G_N_ELEMENTS (table), true);
  return version < table[quirk].fixed_in;
}
