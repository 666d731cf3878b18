package detect

import (
	"regexp"
	"slices"
	"strings"
)

// maxFrames is how many frames go into a fingerprint: where it happened and from where, functions that serve everybody left
// out. With each further one another line must not be lost, and another caller not be inlined.
const maxFrames = 2

var (
	// A frame of a backtrace: " foo+0x12/0x40 [mod]", "? " in front where the unwinder guesses, on arm64 a note such as
	// " (P)" behind it since 6.13, and before 4.10 the address in front. The module may carry its build id.
	frameLine = regexp.MustCompile(`^ +(?:\[<[0-9a-f]+>\] )?(\? )?([A-Za-z_][\w.$]*)\+0x[0-9a-f]+/0x[0-9a-f]+(?: \[[^\]]*\])?(?: \([A-Z]+\))?$`)
	// Where the kernel was: "RIP: 0010:foo+0x12/0x40 [mod]" (0xe030 under Xen), "pc : foo+0x12/0x40 [mod]". 0033 is
	// userspace, 0x… is no code at all.
	whereLine = regexp.MustCompile(`^(?:RIP: (?:0010|0008|e030):|pc : )(?:([A-Za-z_][\w.$]*)\+0x[0-9a-f]+/0x|(0x[0-9a-f]+|[0-9a-f]{16}\b))`)
	// `uname -r` as dump_stack_print_info (lib/dump_stack.c) tells it: "CPU: 0 PID: 1 Comm: init Not tainted 6.1.0 #1".
	releaseIn = regexp.MustCompile(`^CPU: \d+ .*(?:Not tainted|Tainted: [A-Z -]+) ([0-9]\S*) #`)
	// bpfTag is the hash in the name of a BPF program, which changes with its bytecode.
	bpfTag = regexp.MustCompile(`^bpf_prog_[0-9a-f]{16}`)
)

// A trace is what the lines behind a headline tell about the place of the crash.
type trace struct {
	frames []string // innermost first, without the reporting machinery
	jumped bool     // the kernel jumped to an address without code; frames[0] is the caller
}

// function is where it happened, empty if unknown.
func (t *trace) function() string {
	if len(t.frames) == 0 {
		return ""
	}
	return t.frames[0]
}

// readTrace reads the first backtrace in lines, which begin with the headline that rule matched. The instruction pointer
// counts as the innermost frame if it stands in front of the backtrace, as it does in an oops. Inside the backtrace it is
// that of the interrupted code, which is what a stall is about and beside the point otherwise; behind it comes the
// summary of an oops.
func readTrace(lines []line, rule *Rule) trace {
	var t trace
	if rule.anywhere {
		return t
	}
	var where string
	var stack []string
	located := false
	done := false
	for i := range lines {
		if !lines[i].kernel {
			continue
		}
		msg := lines[i].message()
		switch {
		case strings.HasPrefix(msg, "RIP: ") || strings.HasPrefix(msg, "pc : "):
			m := whereLine.FindStringSubmatch(msg)
			if m != nil && !located && (len(stack) == 0 || rule.Verdict == Oops || rule.stalls) {
				located = true
				where, t.jumped = function(m[1]), m[1] == ""
			}
		case done:
		case len(stack) > 0 && endsStack(msg):
			done = true
		case strings.HasPrefix(msg, " "):
			if m := frameLine.FindStringSubmatch(msg); m != nil && m[1] == "" {
				stack = append(stack, function(m[2]))
			}
		}
	}
	if where != "" {
		stack = slices.Insert(stack, 0, where)
	}

	t.frames = innermost(stack, func(f string) bool { return machinery(f) || library(f) || rule.asks && granting(f) })
	if len(t.frames) == 0 && !rule.asks {
		t.frames = innermost(stack, machinery) // better than none
	}
	return t
}

// innermost is the first few functions of a stack, without those to be passed over and without recursion.
func innermost(stack []string, pass func(f string) bool) []string {
	var frames []string
	for _, f := range stack {
		if pass(f) || len(frames) > 0 && frames[len(frames)-1] == f {
			continue
		}
		if frames = append(frames, f); len(frames) == maxFrames {
			break
		}
	}
	return frames
}

// endsStack reports whether a message comes behind a backtrace.
func endsStack(msg string) bool {
	return msg == " </TASK>" || strings.HasPrefix(msg, "Call ") || strings.HasPrefix(msg, "Cause: ") ||
		strings.HasPrefix(msg, "Modules linked in:") || strings.HasPrefix(msg, "---[ end ")
}

// function is a symbol without what the compiler appends, which differs between builds: foo.isra.0, foo.cold.
func function(symbol string) string {
	if i := strings.IndexByte(symbol, '.'); i > 0 {
		symbol = symbol[:i]
	}
	return bpfTag.ReplaceAllLiteralString(symbol, "bpf_prog")
}

// release is `uname -r` from the lines of a report, empty if they do not tell.
func release(lines []line) string {
	for i := range lines {
		if !lines[i].kernel || !strings.HasPrefix(lines[i].message(), "CPU: ") {
			continue
		}
		if m := releaseIn.FindStringSubmatch(lines[i].message()); m != nil {
			return m[1]
		}
	}
	return ""
}

// machinery reports whether a function only serves to report, or to enter the kernel, so that it names no bug.
func machinery(f string) bool {
	return oneOf(f, `dump_stack dump_stack_lvl show_stack dump_backtrace show_regs
		__show_regs panic vpanic nmi_panic __warn __warn_printk warn_slowpath_fmt warn_slowpath_null report_bug
		__report_bug handle_bug die die_addr __die __die_body oops_end oops_exit page_fault_oops no_context
		kernelmode_fixup_or_oops bad_area_nosemaphore bad_area do_user_addr_fault do_kern_addr_fault exc_page_fault
		do_page_fault __do_page_fault page_fault async_page_fault do_trap do_error_trap do_invalid_op invalid_op
		exc_invalid_op general_protection do_general_protection exc_general_protection divide_error do_divide_error
		exc_divide_error double_fault do_double_fault exc_double_fault fixup_exception error_entry nmi_cpu_backtrace
		nmi_cpu_backtrace_handler nmi_handle default_do_nmi exc_nmi end_repeat_nmi do_nmi asm_exc_nmi
		nmi_trigger_cpumask_backtrace rcu_dump_cpu_stacks print_cpu_stall print_other_cpu_stall check_cpu_stall
		rcu_pending rcu_sched_clock_irq rcu_check_callbacks update_process_times tick_sched_handle tick_sched_timer
		tick_nohz_handler __hrtimer_run_queues hrtimer_interrupt watchdog_timer_fn smp_apic_timer_interrupt
		apic_timer_interrupt local_apic_timer_interrupt watchdog_overflow_callback watchdog_hardlockup_check
		__perf_event_overflow perf_event_overflow handle_pmi_common intel_pmu_handle_irq perf_event_nmi_handler
		__might_resched __might_sleep ___might_sleep __schedule_bug spin_bug spin_dump print_report
		print_address_description kasan_report __kasan_report kasan_report_invalid_free end_report check_memory_region
		kasan_check_range kfence_report_error kfence_handle_page_fault refcount_warn_saturate __list_add_valid
		__list_add_valid_or_report __list_del_entry_valid __list_del_entry_valid_or_report usercopy_abort
		__check_heap_object __check_object_size check_heap_object warn_alloc __stack_chk_fail die_kernel_fault
		__do_kernel_fault do_bad_area do_mem_abort do_translation_fault do_sea do_undefinstr do_debug_exception
		brk_handler bug_handler call_break_hook early_brk64 do_el1_undef do_el1_brk64 el1_abort el1_undef el1_dbg
		el1_brk64 el1_sync el1_irq el1_interrupt arm64_serror_panic do_serror el1_error panic_bad_stack
		handle_bad_stack __panic_unhandled bad_mode ubsan_epilogue entry_SYSCALL_64_after_hwframe do_syscall_64
		x64_sys_call el0_svc el0t_64_sync el0t_64_sync_handler do_el0_svc invoke_syscall el0_svc_common ret_from_fork
		ret_from_fork_asm kthread sched_show_task dump_cpu_task rcu_print_detail_task_stall_rnp
		arch_trigger_cpumask_backtrace trigger_single_cpu_backtrace trigger_all_cpu_backtrace should_fail
		should_failslab arch_stack_walk unwind_next_frame unwind_get_return_address stack_trace_save save_stack_trace
		lock_acquire __lock_acquire lock_release lock_is_held_type mark_lock register_lock_class
		check_preemption_disabled debug_lockdep_rcu_enabled debug_check_no_obj_freed check_noncircular
		lockdep_rcu_suspicious print_circular_bug irqentry_exit preempt_schedule_irq preempt_schedule_common
		kcsan_setup_watchpoint warn_bogus_irq_restore refcount_dec_not_one fortify_panic __fortify_panic
		__fortify_report fixup_bug rcu_gp_fqs_loop rcu_gp_kthread console_unlock vprintk_emit vprintk_default
		debug_print_object kasan_check_read kasan_check_write kasan_save_stack skb_panic skb_over_panic
		skb_under_panic assertfail btrfs_assertfail`) ||
		strings.HasPrefix(f, "__sanitizer_cov_") || strings.HasPrefix(f, "__x86_indirect_") || strings.HasPrefix(f, "__msan_") ||
		strings.HasPrefix(f, "__tsan_") || strings.HasPrefix(f, "__kcsan_") || strings.HasPrefix(f, "perf_trace_lock") ||
		strings.HasPrefix(f, "asm_") || strings.HasPrefix(f, "sysvec_") || strings.HasPrefix(f, "__sysvec_") ||
		strings.HasPrefix(f, "__asan_") || strings.HasPrefix(f, "__hwasan_") || strings.HasPrefix(f, "__ubsan_") ||
		strings.HasPrefix(f, "el1h_64_") || strings.HasPrefix(f, "__bad_area")
}

// library reports whether a function serves everybody, so that the bug is its caller's: it was handed a bad pointer, or a
// lock that is gone or taken.
func library(f string) bool {
	return oneOf(f, `memcpy memmove memset memcmp memchr memscan memset_erms memset_orig
		memcpy_erms memcpy_orig __memcpy __memmove __memset __memcmp strlen strnlen strcmp strncmp strcasecmp strcpy
		strncpy strscpy strlcpy strcat strchr strstr rb_erase rb_erase_cached rb_insert_color rb_insert_color_cached
		__rb_insert_augmented __rb_erase_color rb_next rb_prev rb_first rb_last __list_add __list_del_entry list_del
		mutex_lock mutex_lock_killable mutex_lock_interruptible __mutex_lock __mutex_lock_slowpath mutex_lock_nested
		mutex_lock_io __mutex_lock_common mutex_optimistic_spin __rt_mutex_slowlock rt_mutex_slowlock rt_mutex_lock
		rwbase_write_lock rwbase_read_lock down __down down_interruptible __down_common ldsem_down_read
		ldsem_down_write __ldsem_down_write_nested schedule_rtlock osq_lock do_raw_spin_unlock _raw_spin_unlock
		_raw_spin_unlock_irq _raw_spin_unlock_irqrestore _raw_spin_unlock_bh do_raw_spin_trylock __raw_spin_lock
		down_read down_write down_write_killable rwsem_down_read_slowpath rwsem_down_write_slowpath
		rwsem_down_read_failed rwsem_down_write_failed call_rwsem_down_read_failed call_rwsem_down_write_failed
		percpu_down_write percpu_rwsem_wait native_queued_spin_lock_slowpath queued_spin_lock_slowpath
		__pv_queued_spin_lock_slowpath pv_wait_head_or_lock queued_read_lock_slowpath queued_write_lock_slowpath
		do_raw_spin_lock _raw_spin_lock _raw_spin_lock_irq _raw_spin_lock_irqsave _raw_spin_lock_bh _raw_read_lock
		_raw_write_lock _raw_write_lock_irq _raw_write_lock_irqsave _raw_write_lock_bh _raw_read_lock_bh
		_raw_read_lock_irqsave _raw_spin_trylock do_raw_read_lock do_raw_write_lock`)
}

// granting reports whether a function waits for something, tells the time or allocates memory on behalf of its caller.
func granting(f string) bool {
	return oneOf(f, `__schedule schedule schedule_timeout schedule_preempt_disabled
		io_schedule io_schedule_timeout __switch_to context_switch wait_for_completion wait_for_completion_timeout
		wait_for_completion_killable __wait_for_common __wait_for_completion wait_for_common wait_on_bit bit_wait
		bit_wait_io __wait_on_bit out_of_line_wait_on_bit wait_on_page_bit_common __lock_page folio_wait_bit
		folio_wait_bit_common __folio_lock wait_on_page_bit wait_on_page_writeback folio_wait_writeback
		__wait_on_buffer __lock_buffer wait_for_completion_io wait_for_completion_interruptible
		wait_for_completion_state __wait_rcu_gp wait_rcu_gp __synchronize_srcu flush_work __flush_work
		smp_call_function_many_cond smp_call_function_many smp_call_function_single smp_call_function
		on_each_cpu_cond_mask csd_lock_wait delay_tsc delay_halt delay_loop __delay __const_udelay __udelay __ndelay
		native_safe_halt pv_native_safe_halt kvm_wait ktime_get ktime_get_ts64 ktime_get_real_ts64 ktime_get_raw
		ktime_get_mono_fast_ns read_tsc read_hpet kvm_clock_get_cycles kvm_clock_read pvclock_clocksource_read
		pvclock_clocksource_read_nowd native_sched_clock sched_clock sched_clock_cpu local_clock
		arch_counter_get_cntvct __alloc_pages_slowpath __alloc_pages __alloc_pages_noprof __alloc_pages_nodemask
		__alloc_frozen_pages_noprof alloc_pages alloc_pages_noprof alloc_pages_mpol alloc_pages_mpol_noprof
		alloc_pages_current alloc_pages_vma alloc_frozen_pages_noprof alloc_page_interleave folio_alloc
		folio_alloc_noprof vma_alloc_folio vma_alloc_folio_noprof __folio_alloc __folio_alloc_noprof __get_free_pages
		get_free_pages_noprof allocate_slab new_slab ___slab_alloc __slab_alloc __kmalloc __kmalloc_noprof
		__kmalloc_node __kmalloc_node_noprof __kmalloc_cache_noprof __kmalloc_large_node ___kmalloc_large_node
		__kmalloc_large_noprof kmalloc_large kmalloc_order kmalloc_order_trace kmalloc_trace kmalloc_reserve
		__kmalloc_node_track_caller __kmalloc_node_track_caller_noprof kmem_cache_alloc kmem_cache_alloc_noprof
		kmem_cache_alloc_node kmem_cache_alloc_node_noprof kmem_cache_alloc_lru_noprof kmem_cache_alloc_trace
		cache_grow_begin fallback_alloc __vmalloc_node_range __vmalloc_node_range_noprof __vmalloc_node kvmalloc_node
		__kvmalloc_node_noprof`)
}

// oneOf reports whether word is in the list, whose words are separated by white space.
func oneOf(word, list string) bool {
	for w := range strings.FieldsSeq(list) {
		if w == word {
			return true
		}
	}
	return false
}
