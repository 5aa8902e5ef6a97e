# A producer in Perl: perl producer.pl QUEUE NAME... Needs nothing that does not come with Perl.
use strict;
use warnings;
use Encode 'decode';
use HTTP::Tiny;
use JSON::PP;

my $url = $ENV{PRESQUE_URL} // 'http://127.0.0.1:5000';
my ($queue, @people) = @ARGV;

for my $name (@people) {
    my $job = encode_json({name => decode('UTF-8', $name)});
    my $answer = HTTP::Tiny->new->post("$url/q/$queue", {content => $job});
    die $answer->{content} unless $answer->{success};
    print decode_json($answer->{content})->{id}, "\n";
}
