#!/usr/bin/perl
# Stands in for QEMU: speaks QMP on its standard input, prints on the serial console, forwards one port, and greets there as an ssh
# server does, until there is a file `silent` in the instance's directory. The port is the one that it is told to forward, or any.
use strict;
use IO::Select;
use IO::Socket::INET;
my ($wanted) = "@ARGV" =~ /hostfwd=tcp:127\.0\.0\.1:(\d+)-:22/;
my $guest = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $wanted, Listen => 16) or die "no port: $!";
my $port = $guest->sockport;
my @open;
sub say_qmp { syswrite(STDIN, $_[0] . "\n") }
open(STDIN, '+<&=', 0) or die;
say_qmp('{"QMP": {"version": {}, "capabilities": []}}');
syswrite(STDOUT, "booting\nNot backgrounding\n");
my $select = IO::Select->new(\*STDIN, $guest);
my $input = '';
while (1) {
    for my $ready ($select->can_read) {
        if ($ready == $guest) {
            my $stream = $guest->accept or next;
            next if -e 'silent';
            syswrite($stream, "SSH-2.0-script\r\n");
            push @open, $stream;
            next;
        }
        sysread(STDIN, $input, 65536, length $input) or exit 0;
        while ($input =~ s/^(.*)\n//) {
            my $line = $1;
            my $id = $line =~ /"id":(\d+)/ ? $1 : 0;
            my $answer = $line =~ /info usernet/
                ? "\"  TCP[HOST_FORWARD]  11  127.0.0.1 $port  10.0.2.15    22   0   0\\r\\n\"" : '{}';
            say_qmp("{\"return\": $answer, \"id\": $id}");
            exit 0 if $line =~ /"quit"|system_powerdown/;
        }
    }
}
