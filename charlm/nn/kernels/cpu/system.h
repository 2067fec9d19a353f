/* What the kernels need of the operating system: threads, a clock, and sleep until a number in memory changes. */

#ifndef CHARLM_SYSTEM_H
#define CHARLM_SYSTEM_H
#include <limits.h>
#include <stdint.h>

#if defined(__x86_64__)
#define spin_pause() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define spin_pause() __asm__ volatile("yield")
#else
#define spin_pause() ((void)0)
#endif

#ifdef _WIN32
#define WIN32_LEAN_AND_MEAN
#include <windows.h>

typedef HANDLE thread_handle;
typedef DWORD thread_result;
#define THREAD_CALL WINAPI

static inline int start_thread(thread_handle *thread, thread_result(THREAD_CALL *work)(void *), void *data)
{
    *thread = CreateThread(NULL, 0, work, data, 0, NULL);
    return *thread != NULL;
}

static inline void join_thread(thread_handle thread)
{
    WaitForSingleObject(thread, INFINITE);
    CloseHandle(thread);
}

static inline int64_t nanoseconds(void)
{
    LARGE_INTEGER now, rate;
    QueryPerformanceCounter(&now);
    QueryPerformanceFrequency(&rate);
    return (int64_t)((double)now.QuadPart * 1e9 / (double)rate.QuadPart);
}

static inline void sleep_while(int *place, int value) { WaitOnAddress(place, &value, sizeof value, INFINITE); }
static inline void wake(int *place) { WakeByAddressAll(place); }

/* A function of a library that the program has loaded. torch has no such OpenMP runtime on Windows. */
static inline void *loaded_function(const char *name) { return (void)name, NULL; }

#else
#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <time.h>

typedef pthread_t thread_handle;
typedef void *thread_result;
#define THREAD_CALL

static inline int start_thread(thread_handle *thread, thread_result (*work)(void *), void *data)
{
    return pthread_create(thread, NULL, work, data) == 0;
}

static inline void join_thread(thread_handle thread) { pthread_join(thread, NULL); }

static inline int64_t nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static inline void *loaded_function(const char *name) { return dlsym(RTLD_DEFAULT, name); }

#ifdef __linux__
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Returns at once if the number has changed already. */
static inline void sleep_while(int *place, int value)
{
    syscall(SYS_futex, place, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}
static inline void wake(int *place) { syscall(SYS_futex, place, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0); }
#else
static inline void sleep_while(int *place, int value) { (void)place, (void)value, sched_yield(); }
static inline void wake(int *place) { (void)place; }
#endif
#endif

#endif
