/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * repo/repository.h: what the rest of the library wants of a TmkRepository.
 */
#pragma once

#include "repo/repo.h"
#include <tidemark/repository.h>

/* Borrowed. */
Repo *repository_repo (TmkRepository *repository);

/* Manifests as the public API shows them; nothing is borrowed. Free with tmk_point_list_free(). */
TmkPointList *repository_describe (const Manifest *const *manifests, size_t n);
