/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/qmp/tls.h: the credentials with which QEMU's NBD server encrypts, and knows its clients.
 *
 * They are folders of files that QEMU reads itself, so nothing secret passes through here. A
 * definition that asks for TLS without credentials is refused, and so are credentials that a
 * definition has no use for: nobody must take plain text for more than it is.
 */
#pragma once

#include "hv/qmp/machine.h"
#include "hv/qmp/plan.h"

/* Fills in the plan's tls_… fields. All files that QEMU will need are there and can be read, by us
 * at least. */
bool tls_plan (JobPlan *plan, const TmkBeginOptions *options, TmkError **errp);

/* Does the folder hold dh-params.pem? Without it QEMU makes Diffie-Hellman parameters each time, in
 * its main loop: 0.1 to 1.8 s measured with 7.2 and 10.0, 1 ms with it. */
bool tls_has_dh_params (const JobPlan *plan);

/* Gives QEMU the credentials of `plan`. Nothing where it has none. */
bool tls_start (QmpMachine *machine, const JobPlan *plan, TmkError **errp);
