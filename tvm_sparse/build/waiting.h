// How threads wait for a word in memory to change: they look at it for some time, then sleep.
#ifndef TVM_SPARSE_WAITING_H_
#define TVM_SPARSE_WAITING_H_

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#define PAUSES_PER_LOOK_AT_THE_CLOCK 16

static void Pause(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__arm__)
  __asm__ volatile("yield" ::: "memory");
#endif
}

static int64_t Nanoseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

#if defined(__linux__)
static void SleepWhile(atomic_uint* word, uint32_t value) {
  syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}
static void Wake(atomic_uint* word) { syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0); }
static void ForgetSleepers(void) {}
#else
static pthread_mutex_t sleep_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t sleep_condition = PTHREAD_COND_INITIALIZER;
static void SleepWhile(atomic_uint* word, uint32_t value) {
  pthread_mutex_lock(&sleep_mutex);
  while (atomic_load(word) == value) pthread_cond_wait(&sleep_condition, &sleep_mutex);
  pthread_mutex_unlock(&sleep_mutex);
}
static void Wake(atomic_uint* word) {
  (void)word;
  pthread_mutex_lock(&sleep_mutex);
  pthread_cond_broadcast(&sleep_condition);
  pthread_mutex_unlock(&sleep_mutex);
}
static void ForgetSleepers(void) {
  pthread_mutex_init(&sleep_mutex, NULL);
  pthread_cond_init(&sleep_condition, NULL);
}
#endif

// Looks at a word for some nanoseconds, or until it differs from a value, and returns what it is then.
static uint32_t LookForChange(atomic_uint* word, uint32_t value, int64_t nanoseconds) {
  uint32_t now;
  int64_t end = 0;
  for (unsigned pauses = 1; (now = atomic_load_explicit(word, memory_order_acquire)) == value; ++pauses) {
    Pause();
    if (pauses % PAUSES_PER_LOOK_AT_THE_CLOCK != 0) continue;
    int64_t time = Nanoseconds();
    if (end == 0) end = time + nanoseconds;
    if (time >= end) break;
  }
  return now;
}

// Sleeps until a word differs from a value, and returns what it is then. Who changes the word wakes us if `asleep` is
// set.
static uint32_t SleepUntilChange(atomic_uint* word, uint32_t value, atomic_uint* asleep) {
  uint32_t now;
  atomic_store(asleep, 1);
  while ((now = atomic_load(word)) == value) SleepWhile(word, value);
  atomic_store_explicit(asleep, 0, memory_order_relaxed);
  return now;
}

#endif  // TVM_SPARSE_WAITING_H_
