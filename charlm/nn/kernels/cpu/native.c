/* Which of the targets that the kernels were compiled for (see setup.py) run on this machine.

   A target needs its instructions in the processor, and registers that the operating system saves when it changes from
   one program to another: XGETBV says which those are. This file itself is compiled for any processor. */

#include <string.h>

#ifdef _WIN32
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

#if defined(__x86_64__)
#include <cpuid.h>

#define BIT(n) (1u << (n))

/* Whether the system saves all of these registers; only where CPUID says that XGETBV is there (OSXSAVE). */
static int saved(unsigned mask)
{
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & BIT(27)))
        return 0;
    __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
    return (a & mask) == mask;
}

static int has_avx2_and_fma(void)
{
    unsigned a, b, c, d;
    if (!saved(BIT(1) | BIT(2))) /* the lower and the upper half of the 32-byte registers */
        return 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & BIT(12)) || !(c & BIT(28))) /* FMA, AVX */
        return 0;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && b & BIT(5); /* AVX2 */
}

static int has_avx512(void)
{
    const unsigned needed = BIT(16) | BIT(17) | BIT(30) | BIT(31); /* F, DQ, BW, VL */
    unsigned a, b, c, d;
    if (!has_avx2_and_fma() || !saved(BIT(5) | BIT(6) | BIT(7))) /* masks, and 32 registers of 64 bytes */
        return 0;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & needed) == needed;
}

static int has_bf16(void)
{
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && a & BIT(5);
}
#endif

/* Whether this machine runs a target, which may not be in this library: the functions' names tell that; or `bf16`, the
   products of bfloat16 that the target avx512 has too. */
EXPORT int charlm_runs(const char *target)
{
#if defined(__x86_64__)
    if (!strcmp(target, "avx512"))
        return has_avx512();
    if (!strcmp(target, "bf16"))
        return has_avx512() && has_bf16();
    if (!strcmp(target, "avx2"))
        return has_avx2_and_fma();
#elif defined(__aarch64__)
    if (!strcmp(target, "neon"))
        return 1;
#endif
    return !strcmp(target, "generic");
}
