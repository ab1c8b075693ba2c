/* `native.c` for the G1 with 23 joints: the same functions by other names. */

#define J 23
#define LOCAL_LINKS 14 /* pelvis, legs and waist */
#define NATIVE(name) native23_##name
#include "native.c"
