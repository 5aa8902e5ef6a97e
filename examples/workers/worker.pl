# A worker in Perl: perl worker.pl [QUEUE]. Needs nothing that does not come with Perl.
use strict;
use warnings;
use HTTP::Tiny;
use JSON::PP;

my $url   = $ENV{PRESQUE_URL} // 'http://127.0.0.1:5000';
my $queue = shift // 'greetings';
my $http  = HTTP::Tiny->new(timeout => 40);
binmode STDOUT, ':utf8';
$| = 1;

sub work {
    my ($job) = @_;
    die "a greeting needs a name\n" unless $job->{name};
    print "hello, $job->{name}\n";
}

sub post {
    my ($path, $body) = @_;
    my $answer = $http->post("$url$path", {content => encode_json($body)});
    die "$path: $answer->{content}\n" unless $answer->{success};
    return $answer->{status} == 204 ? {jobs => []} : decode_json($answer->{content});
}

while (1) {
    eval {
        for my $leased (@{post("/q/$queue/lease", {wait => 20})->{jobs}}) {
            my ($job, $lease) = ("/j/$leased->{queue}/$leased->{id}", $leased->{lease});
            if (eval { work($leased->{body}); 1 }) { post("$job/ack", {lease => $lease}) }
            else { chomp(my $error = $@); post("$job/fail", {lease => $lease, error => $error}) }
        }
        1;
    } or do { warn $@; sleep 1 };    # the server is away, or the lease is over: the job comes again
}
