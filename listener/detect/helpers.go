package detect

import "github.com/lastgasp/lastgasp/listener/lazyregexp"

// Functions that are not to blame for what happens in them. A crash is named after the innermost function that is none of
// these. Each expression matches whole names, without the dots that compilers append; leading underscores do not count.
var (
	// reporting are the functions that detect, print and enter: between the bug and its report, or below all code.
	reporting = newNames(`^_*(?:` +
		// Printing and unwinding.
		`dump_stack\w*|show_(?:stack|regs|trace)\w*|dump_(?:backtrace|header|cpu_task)|unwind_\w+|walk_stack\w*|save_stack\w*|stack_trace_\w+|` +
		`arch_stack_walk\w*|\w*kernel_text_address|is_\w+_text_address|is_ftrace_trampoline|core_kernel_text|bpf_(?:ksym_find|address_lookup)|stack_access_ok|orc_\w+|get_stack_info\w*|in_task_stack|print_context_stack|dump_trace|deref_stack_\w+|` +
		`sched_show_task|v?printk\w*|console_(?:lock|unlock|trylock|flush_all|emit_next_record)|nbcon_\w+|bust_spinlocks|kmsg_dump\w*|crash_kexec|add_taint|report_bug|handle_bug|fixup_bug|warn|warn_\w+|slowpath_fmt|` +
		`(?:nmi_|v)?panic(?:_\w+)?|\w+_panic|check_panic_on_warn|get_taint|die|die_\w+|die_body|oops_\w+|page_fault_oops|no_context|bad_area\w*|kernelmode_fixup_or_oops|` +
		`print_(?:report|trailer|address_description|unlock_imbalance_bug|\w+_bug)|\w+_report|object_err|slab_(?:err|bug|fix|pad_check)|` +
		`check_slab|check_object|check_bytes_and_report|(?:free|alloc)_(?:debug_processing|consistency_checks)|free_to_partial_list|on_freelist|` +
		`(?:bad|check_new|check_free|free_page_is_bad)_pages?|bad_page\w*|free_page_bad_report|check_new_page_bad_report|dump_page|print_bad_(?:pte|page_map)|\w*page_table_check_\w+|` +
		// Traps, faults and interrupts of x86.
		`\w*page_fault\w*|do_(?:user|kern)_addr_fault|do_(?:trap|error_trap|invalid_op|double_fault|general_protection|divide_error|nmi|int3|bounds|stack_segment)\w*|` +
		`exc_\w+|asm_(?:exc|sysvec|common|spurious|call|fred|int)\w*|(?:xen_)?(?:invalid_op|general_protection|divide_error|double_fault|stack_segment|int3|nmi)|fixup_exception|error_(?:entry|exit|return|sti)|do_machine_check|handle_stack_overflow|spurious_kernel_fault|do_kernel_cp_fault|mm_fault_error|fred_\w+|kernel_exc_vmm_communication|xen\w*_evtchn_do_upcall|evtchn_2l_handle_events|xen_do_hypervisor_callback|` +
		`ret_from_(?:exception|intr|fork|fork_asm)|retint_\w+|sysvec_\w+|\w*apic_timer_interrupt\w*|(?:smp_|do_|asm_|sysvec_)?\w*common_interrupt|do_IRQ|handle_irq|` +
		`error_code|common_exception|call_on_stack|smp_(?:call_function|reschedule|kvm_posted)\w*_interrupt|(?:irq|invoke)_(?:exit|enter)\w*|instrumentation_\w+|irqentry_\w+|end_repeat_nmi|default_do_nmi|` +
		`handle_exception|do_trap_\w+|ret_from_exception|` +
		// The same of arm64, arm, RISC-V, PowerPC and s390.
		`el[01]\w*_(?:sync|irq|fiq|error|abort|dbg|undef|svc|interrupt|brk64|dabt|pc|sp|bti|fpac|gcs|mops|ia|da|inv)\w*|ret_to_user|work_pending|bug_brk_handler|irq_stack_entry|arm\w*pmu_(?:handle|dispatch)_irq|sdei_\w*handler|arm64_(?:notify_die|show_signal)|el0_svc\w*|do_el[01]_\w+|do_(?:mem_abort|translation_fault|kernel_fault|bad_area|` +
		`sea|undefinstr|debug_exception|serror|page_fault|alignment_fault|alignment|sp_pc_abort|tag_check_fault|DataAbort|PrefetchAbort)|(?:dabt|pabt|irq|fiq|und)_(?:svc|usr)\w*|vector_swi|sys_trace_return|arm_notify_die|call_with_stack|(?:brk|bug)_handler|` +
		`call_break_hook|early_brk64|call_(?:el1_)?break_hook|call_undef_hook|arm64_serror_panic|panic_bad_stack|handle_bad_stack|bad_mode|bad_stack|program_check_\w+|data_access_\w+|interrupt_return\w*|` +
		`(?:gic|bcm)\w*handle_irq|(?:do_)?handle_IPI|ipi_handler|do_irq|do_(?:ext|io)_irq|(?:handle_)?riscv_(?:intc_)?irq|(?:do_)?pgm_check(?:_handler)?|(?:ext|io|mcck)_int_handler|do_(?:protection|dat|asce)_exception|monitor_event_exception|illegal_op|(?:generic_)?handle_(?:domain_)?irq\w*|handle_irq_desc|handle_percpu_devid_irq|call_on_irq_stack|do_interrupt_handler|arch_timer_handler_\w+|` +
		// Where system calls and threads begin, and where tasks end.
		`entry_\w+|do_(?:fast_|int80_)?syscall(?:_\w+)?|x(?:64|32|ia32)_sys_call|ia32_sys_call|invoke_syscall|handle_syscall|syscall_\w+|do_SYSENTER_32|sysenter_\w+|tracesys_\w*|ret_fast_syscall|system_call(?:_\w+)?|kthread|rcu_gp_(?:fqs_loop|kthread)|` +
		// The trampolines of probes, patches and BPF.
		`trampoline_handler|(?:arch_)?(?:kretprobe|rethook)_\w+|kprobe_\w*(?:handler|dispatcher|func)|aggr_(?:pre|post)_handler|opt(?:imized)?_callback|` +
		`klp_ftrace_handler|bpf_trampoline\w*|bpf_prog_(?:enter|exit)\w*|bpf_tramp_\w+|bpf_dispatcher_\w+|` +
		`(?:do_exit|do_group_exit|make_task_dead|rewind_stack_do_exit|rewind_stack_and_make_dead|get_signal|get_signal_to_deliver|exit_to_user\w*|arch_do_signal\w*|do_signal|do_notify_resume|prepare_exit_to_usermode|exit_to_usermode\w*)|` +
		`preempt_schedule_\w+|warn_bogus_irq_restore|rust_helper_\w+|(?:\w+::)*rust_begin_unwind|kernel::p(?:anic|rint)\w*(?:::.*)?|rust_build_error|(?:core|alloc)::.*` +
		`)$`)

	// stalling are the timer tick, the NMIs and whoever looks for stalls: between the report of a stall and the code that was
	// interrupted. Elsewhere they are code like any other.
	stalling = newNames(`^_*(?:` +
		`nmi_(?:cpu_backtrace|handle|trigger_cpumask_backtrace)\w*|\w*trigger_\w*backtrace|rcu_(?:dump_cpu_stacks|pending|sched_clock_irq|check_callbacks|print_\w+)|` +
		`print_(?:other_)?cpu_stall\w*|check_cpu_stall|update_process_times|tick_\w+|hrtimer_(?:interrupt|run_queues)|hrtimer_run_queues|watchdog_\w+|lockup_detector_\w+|is_hardlockup|` +
		`local_apic_timer_interrupt|perf_event_(?:overflow|nmi_handler)|perf_event_overflow|handle_pmi_common|intel_pmu_handle_irq|amd_pmu_\w*irq` +
		`)$`)

	// checking are the checks that the compiler or a debugging kernel puts in front of everything. They find faults, and
	// fault themselves where a pointer is too bad to be followed.
	checking = newNames(`^_*(?:` +
		// Sanitizers and checks that compilers insert.
		`\w*(?:kasan|kmsan|kcsan|hwasan|ubsan|kfence|kmemleak|page_owner|stack_depot|alloc_tag)\w*|check_canary\w*|depot_alloc_stack|set_track\w*|create_object|handle_overflow|val_to_string|asan_\w+|msan_\w+|tsan_\w+|sanitizer_\w+|write_comp_data|virt_addr_valid|check_memory_region\w*|stack_chk_fail|` +
		`fortify_\w+|phys_addr\w*|virt_to_phys\w*|cfi_\w+|report_cfi_failure|warn_cfi\w*|x86_indirect_\w+|\w*return_thunk|fentry|(?:arch_)?ftrace_\w+|traceiter_\w+|mcount|read_once_\w*nocheck|read_word_at_a_time|` +
		// Checks of lists, references, objects, copies, locks and contexts.
		`list_(?:add|del)_(?:entry_)?valid\w*|refcount_warn_\w+|refcount_error_report|debug_\w*obj\w*|debug_(?:print|check|timer|hrtimer|work|rcu_b?head|mutex|rt_mutex|dma)_\w+|(?:timer|hrtimer|work|rcuhead|kobject)_fixup_\w+|check_(?:unmap|sync)|bad_io_access|cache_from_obj|vm_normal_\w+|kvm_spurious_fault|usercopy_\w+|` +
		`might_(?:sleep|fault|resched)\w*|cant_(?:sleep|migrate)|schedule_bug|spin_(?:bug|dump)|rwlock_bug|check_preemption_disabled|` +
		`debug_smp_processor_id|this_cpu_preempt_check|lock_(?:acquire|release)\w*|lock_is_held\w*|lock_(?:un)?pin_lock|lock_downgrade|lock_contended|lock_acquired|lock_update_usage|valid_state|check_flags|(?:re)?(?:mark|acquire)_\w*lock\w*|hlock_class|lock_set_class|` +
		`register_lock_class|look_up_lock_class|validate_chain|check_(?:noncircular|prev_add|prevs_add|deadlock|irq_usage|usage|wait_context|chain_key)\w*|lockdep_\w+|debug_lockdep_\w+|` +
		`debug_lockdep\w*|trace_(?:hard|soft)irqs?_\w+|(?:hard|soft)irqs?_\w+_caller|seqprop_\w+|skb_(?:over_|under_)?panic|\w*assertfail|assfail|` +
		`should_fail\w*|fail_dump|perf_trace_\w+|trace_event_\w+|trace_raw_output_\w+|bpf_trace_run\d*|rcu_dynticks_\w+|rcu_is_watching|preempt_count_\w+` +
		`)$`)

	// library are the functions that work on their caller's arguments: a bad pointer, a lock or object that is gone, a wrong
	// count. A fault in them is the caller's.
	library = newNames(`^_*(?:pi_+)?(?:` +
		// Memory, strings, numbers and formats.
		`mem(?:cpy|move|set|cmp|chr|scan|dup)\w*|rep_(?:movs|stos)_alternative|clear_(?:page|huge_page|subpage|highpage)\w*|[kv]*memdup\w*|(?:str|strn|strl|strs)(?:len|cmp|cpy|cat|chr|str|casecmp|scpy|nlen|sep|spn|pbrk|dup)\w*|k?(?:str|strn)dup\w*|` +
		`v?s[cn]*printf|v?asprintf|kv?asprintf\w*|vsnprintf|(?:string|pointer|number|format_decode|va_format|hex_string|resource_string|ip\d_addr_string|symbol_string)(?:_\w+)?|` +
		`jhash\w*|siphash\w*|prandom_\w+|get_random_\w+|\w*copy_to_iter\w*|dev_(?:info|notice|warn|err|alert|crit|emerg|printk|vprintk)\w*|netdev_(?:info|notice|warn|err|printk)|crc\w*|hex_dump_to_buffer|print_hex_dump\w*|csum_(?:partial|and_copy|block|ipv6|tcpudp|fold)\w*|do_csum|ip_fast_csum|strreplace|strim|skip_spaces|kstrto\w+|simple_strto\w+|parse_integer\w*|v?sscanf|widen_string|match_(?:string|token)|sort(?:_r)?|bsearch|hex2bin|bin2hex|seq_(?:write|puts|putc|v?printf|escape\w*|put_decimal\w*)|` +
		// Ciphers, digests and compression.
		`(?:crypto_)?(?:aes\w*|des|des3_ede|sha\d\w*|md5|sm[34]|blake2[bs]|chacha\w*|poly1305|ghash|gcm\w*|xts|cbc|ctr|ecb)_(?:\w+_)?(?:(?:en|de)?crypt|update|final|finup|transform|blocks?|digest|expandkey|setkey|generic)\w*|cipher_crypt_one|crypto_(?:shash|ahash|skcipher|cipher|aead|scomp|acomp|rng)_\w+|` +
		`LZ4_\w+|lzo1x_\w+|ZSTD_\w+|zlib_(?:in|de)flate\w*|inflate_fast|xor_blocks|raid6_\w+|` +
		`(?:raw_|arch_|inline_|asm_|arm_)*copy_(?:to|from|tofrom|in|struct_from)_(?:user|iter|kernel|bvec)\w*|copy(?:in|out|_user\w*|_(?:high)?page(?:_(?:to|from|mc|nt)\w*)?|_folio\w*|_mc\w*)|folio_copy\w*|\w*copy_(?:page|folio)_(?:to|from)_iter\w*|(?:hash_and_)?copy_\w*_iter\w*|` +
		`(?:put|get|clear|arch_clear|bad_get|strncpy_from|probe|nofault)_user\w*|fault_in_\w+|user_access_\w+|simple_(?:read_from|write_to)_buffer|extract_(?:user|iter)_to_sg|probe_kernel_\w+|copy_\w*nofault|iov_iter_\w+|(?:raw_)?(?:read|write)[bwlq](?:_\w+)?|logic_(?:in|out)[bwl]|io(?:read|write)\d+\w*|` +
		// Lists, trees and tables.
		`list_(?:add|del|move|replace|splice|sort|lru_\w+)\w*|list_del_entry|hlist_\w+|llist_\w+|klist_\w+|plist_\w+|rb_\w+|xas_\w+|xa_\w+|radix_tree_\w+|idr_\w+|ida_\w+|interval_tree_\w+|mas_\w+|mab_\w+|mtree_\w+|mt_find\w*|assoc_array_\w+|min_heap_\w+|kfifo_\w+|sbitmap_\w+|` +
		`rhashtable_\w+|rht_\w+|find_(?:next|first|last)_\w*bit\w*|bitmap_\w+|` +
		// Counts and bits.
		`(?:arch_|raw_)?atomic(?:64|_long)?_\w+|refcount_\w+|kref_\w+|percpu_ref_\w+|percpu_counter_\w+|ref_tracker_\w+|rcuref_\w+|lockref_\w+|(?:test_and_)?(?:set|clear|change|test)_bit\w*|csd_lock\w*|` +
		// Locks.
		`mutex_\w+|rt_?mutex_\w+|(?:inode|device|genl|bd|super|tty)_(?:un|try)?lock(?:_(?:nested|shared|killable|interruptible)\w*)?|lock_(?:super|rename|two_nondirectories)|bit_spin_\w+|local_lock\w*|(?:read|write)_seq\w+|seqcount_lockdep_\w+|resilient_\w+|rt_\w*lock\w*|rtlock_\w+|(?:do_|arch_)?(?:raw_)?(?:spin|read|write)_(?:try|un)?lock\w*|do_raw_\w+|raw_(?:spin|read|write|callee_save)_\w+|(?:native_|pv_)?queued_\w+|\w*pv_queued_spin_lock_slowpath|pv_wait_head_or_lock|` +
		`(?:down|up)(?:_(?:read|write|interruptible|killable|trylock|timeout|common)\w*)?|rwsem_\w+|call_rwsem_\w+|rwbase_\w+|percpu_(?:down|up|rwsem)_\w+|percpu_rwsem_\w+|ldsem_\w+|osq_\w+|ww_mutex_\w+|owner_on_cpu|seqlock_\w+|schedule_rtlock|lock_timer_base|raw_spin_rq_\w+|task_rq_lock|rq_lock|` +
		`\w+_(?:read|write)_(?:un)?lock|(?:un)?lock_(?:page|sock|buffer)\w*|release_sock|folio_(?:un)?lock\w*|local_bh_(?:en|dis)able\w*|rcu_(?:read_)?(?:un)?lock\w*|srcu_read_(?:un)?lock|rcu_lock_\w+|cleanup_srcu_struct\w*|` +
		// Waking, waiting, timers and work.
		`wake_up(?:_(?:common|all|sync|locked|bit|var|interruptible|poll|process|q|klogd)\w*)?|wait_for_completion\w*|complete(?:_all|_on_current_cpu|_with_flags)?|try_to_wake_up|wake_q_\w+|wake_bit_function|default_wake_function|autoremove_wake_function|finish_wait|prepare_to_wait\w*|swake_up_\w+|` +
		`(?:del|mod|add)_timer\w*|init_timer\w*|try_to_del_timer\w*|timer_(?:is_static_object|delete\w*|shutdown\w*|reduce|init_key|fixup_\w+)|sk_(?:reset|stop)_timer\w*|hrtimer_\w+|(?:insert|queue|mod)_(?:delayed_)?work\w*|queue_\w*work\w*|(?:flush|cancel)_(?:delayed_)?work\w*|` +
		`cancel_\w*work\w*|flush_workqueue|drain_workqueue|destroy_workqueue|work_is_static_object|init_work|try_to_grab_pending|start_flush_work|work_grab_pending|tasklet_\w+|kthread_(?:stop|park|unpark)|call_rcu\w*|` +
		// Objects, devices, proc and sysfs.
		`kobject_\w+|kset_\w+|add_uevent_var|(?:put|get)_device\w*|get_device_parent|device_(?:add|del|register|unregister|destroy|create|release|for_each_child|remove_file|create_file|initialize|initial_probe|attach|link_\w+|pm_add)\w*|class_(?:create|destroy|register|unregister)\w*|cdev_(?:device_)?(?:add|del)|misc_(?:de)?register|platform_(?:device|driver)_\w+|devtmpfs_\w+|wakeup_source_\w+|of_node_put|` +
		`devres_\w+|devm_\w+|bus_(?:for_each|add|remove|probe)_\w*|driver_(?:attach|detach|probe|register|unregister)\w*|really_probe|sysfs_\w+|dpm_sysfs_\w+|kernfs_(?:remove_by_name|create|new|add_one|find|put|get|drain|activate|name_hash|link_sibling)\w*|internal_create_group\w*|proc_(?:register|create|mkdir|remove|symlink|alloc)\w*|` +
		`proc_(?:net_)?(?:create|mkdir|remove)\w*|remove_proc_\w+|xlate_proc_name|proc_entry_rundown|pde_put|close_pdeo|debugfs_(?:create|remove)\w*|start_creating|(?:un)?register_sysctl\w*|insert_header|drop_sysctl_table|` +
		// Interrupts, clocks, mappings.
		`free_irq|(?:en|dis)able_irq\w*|synchronize_irq|request_(?:threaded_|percpu_|any_context_)?(?:irq|nmi)|clk_(?:core_|bulk_)?(?:disable|enable|(?:un)?prepare)\w*|regulator_(?:put|disable|enable)|pm_runtime_\w+|ioremap\w*|iounmap|mem(?:re|un)map\w*|dma_(?:un)?map_\w+|dma_(?:free_(?:attrs|coherent|pages|noncoherent)|sync_\w+|direct_\w+|pool_\w+)|` +
		// Freeing. Who frees twice, or what is not there, is the caller.
		`k[vz]?free\w*|kfree_\w+|vfree\w*|v(?:un)?map|free_large_kmalloc|slab_free\w*|do_slab_free|cache_free\w*|kmem_cache_(?:free|destroy)\w*|(?:consume|kfree)_skb\w*|skb_(?:release|free|put|push|pull|copy_\w*bits|unlink|dequeue|queue_(?:head|tail|purge)|append|ext_put)\w*|sk_skb_reason_drop|napi_consume_skb|p?skb_(?:copy|clone|copy_fclone|copy_expand|expand_head)|free_percpu|mempool_(?:free|destroy|exit)|free_\w*pages?\w*|put_page\w*|page_frag_free|folio_put\w*|` +
		// References of files and file systems.
		`iput|iput_final|ihold|dentry_unlink_inode|module_put|try_module_get|put_(?:pid|task_struct|cred|net)|dma_fence_put|dev_put|netdev_put|sock_put|sk_free|css_put|bio_put|(?:inc|drop|set|clear)_nlink|f?dput|fast_dput|retain_dentry|dentry_kill|mark_buffer_dirty\w*|brelse|` +
		// Sending of USB requests.
		`usb_(?:submit_urb|kill_urb|kill_anchored_urbs|control_msg|bulk_msg|interrupt_msg|start_wait_urb|hcd_submit_urb|free_urb)\w*|dummy_urb_\w+|unregister_client|i2c_del_adapter|` +
		`kernel::(?:alloc|list|rbtree|sync|uaccess|xarray|str|workqueue|time|types)::.*|rust_\w*alloc\w*|(?:\w+::)*rust_\w*alloc\w*|` +
		`rollback_registered\w*|unregister_netdev\w*|tty_unregister_device|hwrng_unregister` +
		`)$`)

	// allocating are the functions that allocate memory. A bug that they report is the caller's. A fault in them is their own, as
	// one in what they call: the memory that they look after is broken, and the caller just came along.
	allocating = newNames(`^_*(?:` +
		`\w*(?:alloc_(?:frozen_)?pages?|alloc_folio|folio_alloc|alloc_from_pcs)\w*|alloc_pages\w*|get_free_pages\w*|get_zeroed_page\w*|get_page_from_freelist|prep_new_page|post_alloc_hook|rmqueue\w*|` +
		`k[vmz]*(?:alloc|calloc|realloc)\w*|kmalloc_\w+|kvmalloc\w*|kzalloc\w*|krealloc\w*|kcalloc\w*|v[mz]?alloc\w*|vmalloc_\w+|kmem_cache_alloc\w*|kmem_\w+|slab_\w+|(?:new|allocate)_slab\w*|cache_grow\w*|cache_alloc\w*|fallback_alloc|` +
		`\w*(?:kmalloc|kzalloc|kcalloc|vmalloc|vzalloc|mem_zalloc)\w*|alloc_inode|page_cache_alloc\w*|add_to_page_cache\w*|do_krealloc\w*|folio_prealloc|\w*sheaf\w*|pcs_replace_\w+|get_vm_area\w*|alloc_vmap_area|gen_pool_alloc\w*|(?:napi_)?build_skb\w*|get_(?:any_)?partial\w*|deactivate_slab|put_cpu_partial|unfreeze_partials|put_partials\w*|memcg_slab_\w+|bio_alloc_\w+|bvec_alloc|biovec_slab_alloc|alloc_buffer_head|sg_(?:alloc|kmalloc)\w*|alloc_netdev\w*|usb_alloc_\w+|hcd_buffer_alloc|\w+_alloc_inode|alloc_inode_sb|d_alloc\w*|alloc_(?:empty_)?file\w*|compact_zone|try_to_compact_pages|out_of_memory|warn_alloc|alloc_workqueue\w*|seq_buf_alloc|sock_alloc_send_\w+|should_failslab|check_heap_object|check_(?:stack_object|page_span)|check_object_size|pcpu_alloc\w*|alloc_percpu\w*|mempool_alloc\w*|(?:dmam?|iommu_dma)_alloc\w*|page_pool_\w*alloc\w*|page_frag_\w+|(?:skb|sk)_page_frag_refill|qlist_free_all|quarantine_\w+|\w*alloc_skb\w*|sk_(?:prot_)?alloc|pcpu_create_chunk|` +
		`filemap_(?:alloc_folio|get_folio)\w*|filemap_get_folio\w*|find_or_create_page|pagecache_get_page|grab_cache_page\w*|(?:do_)?read_cache_(?:page|folio)\w*|find_lock_entries|truncate_inode_pages_range|read_mapping_\w+` +
		`)$`)

	// dispatching are the functions that call the actual work of a task or an interrupt.
	dispatching = lazyregexp.New(`^_*(?:process_one_work|worker_thread|kthread|ret_from_fork\w*|do_(?:fast_|int80_)?syscall_\w+|entry_\w+|invoke_syscall|x64_sys_call|` +
		`el0_svc\w*|ret_fast_syscall|tracesys_\w*|sysenter_\w+|do_softirq\w*|handle_softirqs|run_ksoftirqd|smpboot_thread_fn)$`)

	// waiting are the functions in which a task waits, those that read the time meanwhile, the drivers of slow consoles, and those
	// that run what an interrupt has left for later. Their caller, or whom they have interrupted, is to be named.
	waiting = newNames(`^_*(?:` +
		`schedule\w*|finish_task_switch|io_schedule\w*|sleep_on_\w+|preempt_schedule\w*|switch_to|context_switch|(?:do_)?wait_for_\w+|(?:out_of_line_)?wait_on_\w+|bit_wait\w*|lock_(?:page|buffer|folio)\w*|folio_(?:lock|wait)_\w+|folio_lock\w*|` +
		`wait_rcu_gp\w*|synchronize_\w+|rcu_barrier\w*|flush_work\w*|smp_call_function\w*|on_each_cpu\w*|csd_lock_wait|exp_funnel_lock|\w+_wait_bit_killable|cv_\w*wait\w*|delay_\w+|(?:const_)?[un]delay|delay|msleep\w*|usleep_\w+|` +
		`(?:pv_)?native_safe_halt|kvm_wait|xen_(?:hypercall_\w+|poll_irq\w*|qlock_wait)|hv_qlock_wait|(?:native|kvm|hyperv|xen)_flush_tlb_(?:multi|others)|ktime_get\w*|read_tsc|read_hpet|(?:pv|kvm_)?clock\w*_read\w*|kvm_clock_get_cycles|kvm_clock_read|pvclock_clocksource_read\w*|(?:native_|local_)?sched_clock\w*|local_clock\w*|arch_counter_(?:get_\w+|read)|do_softirq\w*|handle_softirqs|cond_resched\w*|should_resched|` +
		`call_console_drivers|(?:msg|record)_print_text|(?:univ|serial)8250_\w*|uart_console_write|(?:io|mem\d*)_serial_(?:in|out)|(?:pl011|hvc|vt)_console_\w+` +
		`)$`)
)
