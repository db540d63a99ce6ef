/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tidemark/tidemark.h: all of the public API. */
#ifndef TIDEMARK_TIDEMARK_H
#define TIDEMARK_TIDEMARK_H

#include <tidemark/backup.h>
#include <tidemark/backup_def.h>
#include <tidemark/block_sink.h>
#include <tidemark/block_source.h>
#include <tidemark/check.h>
#include <tidemark/checkpoint_def.h>
#include <tidemark/domain.h>
#include <tidemark/domain_def.h>
#include <tidemark/error.h>
#include <tidemark/libvirt.h>
#include <tidemark/repository.h>
#include <tidemark/restore.h>
#include <tidemark/xml.h>

#endif
