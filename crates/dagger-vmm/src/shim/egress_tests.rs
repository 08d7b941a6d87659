use super::*;

#[test]
fn the_hosts_own_addresses_are_read_from_the_kernels_table() {
    let table = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     \
                 |-- 203.0.113.0\n           /24 link UNICAST\n        |-- 203.0.113.2\n           /32 host LOCAL\n     \
                 |-- 203.0.113.255\n           /32 link BROADCAST\n     |-- 127.0.0.1\n           /32 host LOCAL\n";
    assert_eq!(
        host_addresses(table),
        [Ipv4Addr::new(203, 0, 113, 2), Ipv4Addr::LOCALHOST]
    );
    assert!(host_addresses("").is_empty());
}

#[test]
fn what_is_private_is_prohibited_and_the_rest_of_the_internet_is_not() {
    let refused = |address: [u8; 4]| {
        let address = u32::from(Ipv4Addr::from(address));
        PROHIBITED.iter().any(|(network, bits)| {
            let mask = u32::MAX << (32 - u32::from(*bits));
            address & mask == u32::from(*network)
        })
    };
    for private in [
        [10, 1, 2, 3],
        [100, 100, 100, 200],
        [168, 63, 129, 16],
        [169, 254, 169, 254],
        [172, 31, 255, 255],
        [192, 0, 0, 192],
        [192, 168, 1, 1],
        [224, 0, 0, 251],
        [255, 255, 255, 255],
    ] {
        assert!(refused(private), "{private:?}");
    }
    for public in [
        [1, 1, 1, 1],
        [8, 8, 8, 8],
        [172, 32, 0, 1],
        [168, 63, 129, 17],
        [223, 255, 255, 1],
    ] {
        assert!(!refused(public), "{public:?}");
    }
}
