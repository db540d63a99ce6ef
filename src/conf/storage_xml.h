/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * conf/storage_xml.h: a backup's `<target>` or `<scratch>` from and to XML. Every field is
 * checked, whether or not a schema was asked before. Messages begin with the origin and the line.
 */
#pragma once

#include "conf/storage_def.h"
#include "conf/xml_writer.h"
#include "util/error.h"

/* The image formats that libvirt reads (`<driver type=>`). */
gboolean storage_format_is_known (const char *format);

/* Reads attributes and children of the element `node` into `def`, whose type is set already:
 * `file=` or `dev=`, `<seclabel>`s and `<encryption>`. */
bool storage_def_parse (StorageDef *def, const char *origin, const xmlNode *node, TmkError **errp);

/* Writes it as an element called `name`; nothing where there is nothing to say. */
void storage_def_format (const StorageDef *def, const char *name, XmlWriter *w);
