/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hv/libvirt/inspect.c: what a domain of libvirt's runs on, for who wants to know whether a backup
 * would work. */
#include "hv/libvirt/lv.h"

#include "conf/xml_doc.h"

#include <stdlib.h>
#include <string.h>

/* libvirt does not tell, but writes it down (source: libvirt, src/qemu/qemu_conf.c). */
static long
find_pid (const LvDomain *lv)
{
  g_autofree char *folder
      = connection_is_session (lv->connection)
            ? g_build_filename (g_get_user_runtime_dir (), "libvirt", "qemu", "run", NULL)
            : g_strdup ("/run/libvirt/qemu");
  g_autofree char *path = g_strdup_printf ("%s/%s.pid", folder, lv->name);
  g_autofree char *text = NULL;
  return g_file_get_contents (path, &text, NULL, NULL) ? strtol (text, NULL, 10) : 0;
}

/* libvirt's version numbers are major*1000000 + minor*1000 + micro. */
static unsigned
find_version (const LvDomain *lv)
{
  unsigned long version = 0;
  if (virConnectGetVersion (lv->connection, &version) != 0)
    return 0;
  return (unsigned) (version / 1000000 * 10000 + version / 1000 % 1000 * 100 + version % 1000);
}

HvAgent
lv_find_agent (const LvDomain *lv)
{
  g_autoptr (xmlDoc) doc = xml_doc_parse (lv->xml, strlen (lv->xml), "the domain", "domain", NULL);
  const xmlNode *devices = doc != NULL ? xml_child (xmlDocGetRootElement (doc), "devices") : NULL;
  for (const xmlNode *channel = devices != NULL ? xml_child (devices, "channel") : NULL;
       channel != NULL; channel = xml_next (channel, "channel")) {
    const xmlNode *target = xml_child (channel, "target");
    g_autofree char *name = target != NULL ? xml_attr (target, "name") : NULL;
    g_autofree char *state = target != NULL ? xml_attr (target, "state") : NULL;
    if (g_strcmp0 (name, "org.qemu.guest_agent.0") == 0)
      return g_strcmp0 (state, "connected") == 0 ? HV_AGENT_CONNECTED : HV_AGENT_SILENT;
  }
  return HV_AGENT_NONE;
}

bool
lv_inspect (LvDomain *lv, HvFacts *facts, TmkError **errp)
{
  if (!lv_look (lv, errp))
    return false;
  *facts = (HvFacts){ .running = lv->active, .agent = HV_AGENT_UNKNOWN };
  if (!lv->active)
    return true;
  facts->version = find_version (lv);
  facts->pid = find_pid (lv);
  facts->agent = lv_find_agent (lv);
  return true;
}
