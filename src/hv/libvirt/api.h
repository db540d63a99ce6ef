/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hv/libvirt/api.h: libvirt's functions, found when they are needed.
 *
 * libvirt brings some thirty libraries with it, which would double the time that every verb takes
 * to start, and would have to be installed where only bare QEMUs run. So it is loaded by the first
 * who wants a domain of it: after lv_api_load() the functions can be called by their own names. The
 * build needs its headers only.
 */
#pragma once

#include "util/error.h"

#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>

/* Loads the library; TMK_ERR_UNSUPPORTED where it is not installed or too old. Any thread. */
bool lv_api_load (TmkError **errp);

/* clang-format off */
#define LV_API_FUNCTIONS(X) \
  X (virConnectClose) \
  X (virConnectGetLibVersion) \
  X (virConnectGetType) \
  X (virConnectGetURI) \
  X (virConnectGetVersion) \
  X (virConnectIsAlive) \
  X (virConnectListAllDomains) \
  X (virConnectOpen) \
  X (virConnectOpenAuth) \
  X (virDomainAbortJob) \
  X (virDomainAgentSetResponseTimeout) \
  X (virDomainBackupBegin) \
  X (virDomainBackupGetXMLDesc) \
  X (virDomainCheckpointCreateXML) \
  X (virDomainCheckpointDelete) \
  X (virDomainCheckpointFree) \
  X (virDomainCheckpointGetName) \
  X (virDomainCheckpointGetXMLDesc) \
  X (virDomainCheckpointListAllChildren) \
  X (virDomainCheckpointLookupByName) \
  X (virDomainDefineXMLFlags) \
  X (virDomainFSFreeze) \
  X (virDomainFSThaw) \
  X (virDomainFree) \
  X (virDomainGetBlockInfo) \
  X (virDomainGetBlockJobInfo) \
  X (virDomainGetJobInfo) \
  X (virDomainGetJobStats) \
  X (virDomainGetName) \
  X (virDomainGetState) \
  X (virDomainGetUUIDString) \
  X (virDomainGetXMLDesc) \
  X (virDomainIsActive) \
  X (virDomainIsPersistent) \
  X (virDomainListAllCheckpoints) \
  X (virDomainLookupByID) \
  X (virDomainLookupByName) \
  X (virDomainLookupByUUIDString) \
  X (virDomainResume) \
  X (virGetLastError) \
  X (virGetLastErrorCode) \
  X (virGetLastErrorMessage) \
  X (virSecretFree) \
  X (virSecretGetValue) \
  X (virSecretLookupByUUIDString) \
  X (virSecretLookupByUsage) \
  X (virSetErrorFunc) \
  X (virTypedParamsFree) \
  X (virTypedParamsGetBoolean) \
  X (virTypedParamsGetInt) \
  X (virTypedParamsGetString)

/* Those of newer releases; NULL where the library lacks them. */
#define LV_API_NEW_FUNCTIONS(X) \
  X (virDomainFDAssociate)
/* clang-format on */

/* What the headers of older releases lack. Source: libvirt's reference, virDomainBackupBeginFlags.
 */
#define LV_BACKUP_BEGIN_PRESERVE_SHUTDOWN_DOMAIN (1u << 1)

typedef struct {
#define LV_API_MEMBER(name) __typeof__ (&(name)) name##_;
  LV_API_FUNCTIONS (LV_API_MEMBER)
  LV_API_NEW_FUNCTIONS (LV_API_MEMBER)
#undef LV_API_MEMBER
  virConnectAuthPtr *auth_default;
} LvApi;

extern LvApi lv_api;

#ifndef LV_API_DECLARATIONS_ONLY
#  define virConnectClose lv_api.virConnectClose_
#  define virConnectGetLibVersion lv_api.virConnectGetLibVersion_
#  define virConnectGetType lv_api.virConnectGetType_
#  define virConnectGetURI lv_api.virConnectGetURI_
#  define virConnectGetVersion lv_api.virConnectGetVersion_
#  define virConnectIsAlive lv_api.virConnectIsAlive_
#  define virConnectListAllDomains lv_api.virConnectListAllDomains_
#  define virConnectOpen lv_api.virConnectOpen_
#  define virConnectOpenAuth lv_api.virConnectOpenAuth_
#  define virDomainAbortJob lv_api.virDomainAbortJob_
#  define virDomainAgentSetResponseTimeout lv_api.virDomainAgentSetResponseTimeout_
#  define virDomainBackupBegin lv_api.virDomainBackupBegin_
#  define virDomainBackupGetXMLDesc lv_api.virDomainBackupGetXMLDesc_
#  define virDomainCheckpointCreateXML lv_api.virDomainCheckpointCreateXML_
#  define virDomainCheckpointDelete lv_api.virDomainCheckpointDelete_
#  define virDomainCheckpointFree lv_api.virDomainCheckpointFree_
#  define virDomainCheckpointGetName lv_api.virDomainCheckpointGetName_
#  define virDomainCheckpointGetXMLDesc lv_api.virDomainCheckpointGetXMLDesc_
#  define virDomainCheckpointListAllChildren lv_api.virDomainCheckpointListAllChildren_
#  define virDomainCheckpointLookupByName lv_api.virDomainCheckpointLookupByName_
#  define virDomainDefineXMLFlags lv_api.virDomainDefineXMLFlags_
#  define virDomainFDAssociate lv_api.virDomainFDAssociate_
#  define virDomainFSFreeze lv_api.virDomainFSFreeze_
#  define virDomainFSThaw lv_api.virDomainFSThaw_
#  define virDomainFree lv_api.virDomainFree_
#  define virDomainGetBlockInfo lv_api.virDomainGetBlockInfo_
#  define virDomainGetBlockJobInfo lv_api.virDomainGetBlockJobInfo_
#  define virDomainGetJobInfo lv_api.virDomainGetJobInfo_
#  define virDomainGetJobStats lv_api.virDomainGetJobStats_
#  define virDomainGetName lv_api.virDomainGetName_
#  define virDomainGetState lv_api.virDomainGetState_
#  define virDomainGetUUIDString lv_api.virDomainGetUUIDString_
#  define virDomainGetXMLDesc lv_api.virDomainGetXMLDesc_
#  define virDomainIsActive lv_api.virDomainIsActive_
#  define virDomainIsPersistent lv_api.virDomainIsPersistent_
#  define virDomainListAllCheckpoints lv_api.virDomainListAllCheckpoints_
#  define virDomainLookupByID lv_api.virDomainLookupByID_
#  define virDomainLookupByName lv_api.virDomainLookupByName_
#  define virDomainLookupByUUIDString lv_api.virDomainLookupByUUIDString_
#  define virDomainResume lv_api.virDomainResume_
#  define virGetLastError lv_api.virGetLastError_
#  define virGetLastErrorCode lv_api.virGetLastErrorCode_
#  define virGetLastErrorMessage lv_api.virGetLastErrorMessage_
#  define virSecretFree lv_api.virSecretFree_
#  define virSecretGetValue lv_api.virSecretGetValue_
#  define virSecretLookupByUUIDString lv_api.virSecretLookupByUUIDString_
#  define virSecretLookupByUsage lv_api.virSecretLookupByUsage_
#  define virSetErrorFunc lv_api.virSetErrorFunc_
#  define virTypedParamsFree lv_api.virTypedParamsFree_
#  define virTypedParamsGetBoolean lv_api.virTypedParamsGetBoolean_
#  define virTypedParamsGetInt lv_api.virTypedParamsGetInt_
#  define virTypedParamsGetString lv_api.virTypedParamsGetString_
#endif
